"""Jobs of a study for the web UI and for schedules: assets that are usually launched together."""

from typing import Any

import dagster as dg

from gradsim.study import Study
from gradsim.tables import Lineage
from gradsim_assets.keys import asset_key


def study_jobs(study: Study) -> list[Any]:
    """Return the jobs `STUDY__dataset`, `STUDY__partitions` (to backfill), `STUDY__combine` and `STUDY__analysis`.

    An imported study has only the last one.
    """
    lineage = Lineage(study)
    partitioned = [node.key for node in lineage if node.partitioned]
    combined = [node.key for node in lineage if node.key.room == "results"]
    analysed = [node.key for node in lineage if node.key.room == "analysis" or node.key.name == "report"]
    analysis = dg.define_asset_job(
        f"{study.name}__analysis",
        [asset_key(key) for key in analysed],
        description="Compute all analyses and the report from the combined tables.",
    )
    if study.imported:
        return [analysis]
    names = ("samples", "model", "layers", "tokenized", "projections")
    dataset = [key for name in names if (key := lineage.key(name)) in lineage]
    return [
        dg.define_asset_job(
            f"{study.name}__dataset",
            [asset_key(key) for key in dataset],
            description="Load the original samples, download or train the model, and tokenize the samples.",
        ),
        dg.define_asset_job(
            f"{study.name}__partitions",
            [asset_key(key) for key in partitioned],
            description="Compute queries, token ids, candidates and gradient dots of every setting, by partition.",
        ),
        dg.define_asset_job(
            f"{study.name}__combine",
            [asset_key(key) for key in combined],
            description="Combine the partitions of every setting's tables into one table each.",
        ),
        analysis,
    ]

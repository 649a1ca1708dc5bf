"""Jobs of a study, for the web UI and for schedules: what is usually launched together."""

from typing import Any

import dagster as dg

from gradsim.study import Study
from gradsim.tables import Lineage
from gradsim_assets.keys import asset_key


def study_jobs(study: Study) -> list[Any]:
    """`STUDY__dataset`, `STUDY__partitions` (to backfill), `STUDY__combine` and `STUDY__analysis`.

    Of an imported study there is the last alone.
    """
    lineage = Lineage(study)
    partitioned = [node.key for node in lineage if node.partitioned]
    combined = [node.key for node in lineage if node.key.room == "results"]
    analysed = [node.key for node in lineage if node.key.room == "analysis" or node.key.name == "report"]
    analysis = dg.define_asset_job(
        f"{study.name}__analysis",
        [asset_key(key) for key in analysed],
        description="All analyses and the report, from the combined tables.",
    )
    if study.imported:
        return [analysis]
    dataset = [lineage.key(name) for name in ("samples", "model", "tokenized", "projections")]
    return [
        dg.define_asset_job(
            f"{study.name}__dataset",
            [asset_key(key) for key in dataset],
            description="Load the originals, have the model, tokenize.",
        ),
        dg.define_asset_job(
            f"{study.name}__partitions",
            [asset_key(key) for key in partitioned],
            description="Queries, tokens, candidates and gradients of every setting, by partition.",
        ),
        dg.define_asset_job(
            f"{study.name}__combine",
            [asset_key(key) for key in combined],
            description="Combine the partitions of every setting.",
        ),
        analysis,
    ]

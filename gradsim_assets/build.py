"""The code location: the assets, checks and jobs of every study, and the shared resources."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from gradsim.environment import Environment, read_environment
from gradsim.study import Study, load_studies
from gradsim.tables import Lineage
from gradsim_assets.asset_specs import table_spec
from gradsim_assets.assets.analysis import setting_analysis_assets, study_analysis_assets
from gradsim_assets.assets.audit import audit_asset, audit_check
from gradsim_assets.assets.broken import broken_studies
from gradsim_assets.assets.dataset import dataset_assets
from gradsim_assets.assets.gradients import gradient_assets, index_assets
from gradsim_assets.assets.report import report_asset
from gradsim_assets.assets.results import result_assets
from gradsim_assets.assets.variants import variant_assets
from gradsim_assets.checks.partition_checks import partition_checks
from gradsim_assets.checks.quality_checks import quality_checks
from gradsim_assets.checks.tokenization_check import tokenization_check
from gradsim_assets.dispatch import Dispatch, compute_resource
from gradsim_assets.io_manager import TableIOManager
from gradsim_assets.keys import asset_key
from resources.storage import StorageResource

# Backfill policies and partitioned asset checks are beta; Dagster's version is pinned.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


def build_definitions(
    studies: Iterable[Study] | None = None,
    environment: Environment | None = None,
    resources: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Build all definitions.

    Args:
        studies: Studies to include; None for all studies of the studies folder. One that is not valid becomes an asset
            that states its error.
        environment: Environment; None to read it from this machine.
        resources: Replacements for the usual resources, by key.
    """
    environment = environment or read_environment()
    studies, faults = load_studies(environment) if studies is None else (list(studies), {})
    of_studies = [asset for study in studies for asset in study_assets(study, Dispatch.of(environment))]
    return dg.Definitions(
        assets=[*of_studies, *broken_studies(faults)],
        asset_checks=[check for study in studies for check in study_checks(study)],
        jobs=[job for study in studies for job in study_jobs(study)],
        resources={**usual_resources(studies, environment), **(resources or {})},
        # Steps only wait for partition jobs or move small tables, so one process is enough.
        executor=dg.in_process_executor,
    )


def study_assets(study: Study, dispatch: Dispatch) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return all assets of a study."""
    lineage = Lineage(study)
    # Dagster shows imported tables, but does not compute them.
    imported = [table_spec(lineage, node.key, kinds={"json", "parquet"}) for node in lineage if node.imported]
    assets = imported or computed_assets(study, dispatch)
    analyses = [setting_analysis_assets(study, setting) for setting in study.settings]
    return [*assets, *analyses, *study_analysis_assets(study), report_asset(study)]


def computed_assets(study: Study, dispatch: Dispatch) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return a study's computed assets: dataset, variants, gradients, combined tables, audits and index."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [*dataset_assets(study, dispatch)]
    for name, setting in study.ordered_settings():
        assets += variant_assets(study, name, setting, dispatch)
        assets += [result_assets(study, name), audit_asset(study, name, dispatch)]
    return [*assets, gradient_assets(study, dispatch), *index_assets(study, dispatch)]


def study_checks(study: Study) -> list[dg.AssetChecksDefinition]:
    """Return all asset checks of a study; an imported study has none, because the import checks its tables."""
    if study.imported:
        return []
    audits = [audit_check(study, setting) for setting in study.settings]
    tokens = [tokenization_check(study)] if study.template == "tulu" else []
    return [*tokens, *partition_checks(study), *quality_checks(study), *audits]


def usual_resources(studies: Iterable[Study], environment: Environment) -> dict[str, Any]:
    """Return the resources for an environment."""
    storage = StorageResource(root=str(environment.data_root))
    return {
        "storage": storage,
        "io_manager": TableIOManager(storage, {study.name: study for study in studies}),
        "compute": compute_resource(environment),
    }


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

"""The code location: the assets, checks and jobs of every study, and the shared resources."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from gradsim.environment import Environment, read_environment
from gradsim.study import Study, load_studies
from gradsim.tables import Lineage
from gradsim_assets.asset_specs import run_tags, table_spec
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
from gradsim_assets.checks.stored_check import NAME as STORED
from gradsim_assets.checks.stored_check import stored_check, stored_files_sensor
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
    lineages = [Lineage(study) for study in studies]
    of_studies = [asset for lineage in lineages for asset in study_assets(lineage, Dispatch.of(environment))]
    return dg.Definitions(
        assets=[*of_studies, *broken_studies(faults)],
        asset_checks=[check for lineage in lineages for check in study_checks(lineage)],
        jobs=[job for lineage in lineages for job in study_jobs(lineage)],
        sensors=[stored_files_sensor(studies)],
        resources={**usual_resources(studies, environment), **(resources or {})},
        # Steps only wait for partition jobs or move small tables, so one process is enough.
        executor=dg.in_process_executor,
    )


def study_assets(lineage: Lineage, dispatch: Dispatch) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return all assets of a study."""
    # Dagster shows imported tables, but does not compute them.
    imported = [table_spec(lineage, node.key, kinds={"json", "parquet"}) for node in lineage if node.imported]
    assets = imported or computed_assets(lineage, dispatch)
    analyses = [setting_analysis_assets(lineage, setting) for setting in lineage.study.settings]
    return [*assets, *analyses, *study_analysis_assets(lineage), report_asset(lineage)]


def computed_assets(lineage: Lineage, dispatch: Dispatch) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return a study's computed assets: dataset, variants, gradients, combined tables, audits and index."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [*dataset_assets(lineage, dispatch)]
    for setting, _ in lineage.study.ordered_settings():
        assets += variant_assets(lineage, setting, dispatch)
        assets += [result_assets(lineage, setting), audit_asset(lineage, setting, dispatch)]
    return [*assets, gradient_assets(lineage, dispatch), *index_assets(lineage, dispatch)]


def study_checks(lineage: Lineage) -> list[dg.AssetChecksDefinition]:
    """Return all asset checks of a study; an imported study has only one, because the import checks its tables."""
    study = lineage.study
    if study.imported:
        return [stored_check(lineage)]
    audits = [audit_check(lineage, setting) for setting in study.settings]
    tokens = [tokenization_check(lineage)] if study.template == "tulu" else []
    return [stored_check(lineage), *tokens, *partition_checks(lineage), *quality_checks(lineage), *audits]


def usual_resources(studies: Iterable[Study], environment: Environment) -> dict[str, Any]:
    """Return the resources for an environment."""
    storage = StorageResource(root=str(environment.data_root))
    return {
        "storage": storage,
        "io_manager": TableIOManager(storage, {study.name: study for study in studies}),
        "compute": compute_resource(environment),
    }


def study_jobs(lineage: Lineage) -> list[Any]:
    """Return a job for each stage of a study, and `STUDY__status`, which only looks at its files.

    An imported study has only the last two.
    """
    study = lineage.study
    partitioned = [node.key for node in lineage if node.partitioned]
    combined = [node.key for node in lineage if node.key.room == "results"]
    analysed = [node.key for node in lineage if node.key.room == "analysis" or node.key.name == "report"]
    names = ("samples", "model", "layers", "tokenized", "projections")
    dataset = [key for name in names if (key := lineage.key(name)) in lineage]
    computing = {
        "dataset": (dataset, "Load the original samples, download or train the model, and tokenize the samples."),
        "partitions": (
            partitioned,
            "Compute queries, token ids, candidates and gradient dots of every setting, by partition.",
        ),
        "combine": (combined, "Combine the partitions of every setting's tables into one table each."),
        "analysis": (analysed, "Compute all analyses and the report from the combined tables."),
    }
    stored = dg.AssetSelection.checks(*(dg.AssetCheckKey(asset_key(node.key), STORED) for node in lineage))
    jobs = [
        dg.define_asset_job(
            f"{study.name}__{name}",
            dg.AssetSelection.assets(*map(asset_key, keys)) - stored,
            description=description,
            tags=run_tags(study),
        )
        for name, (keys, description) in computing.items()
        if name == "analysis" or not study.imported
    ]
    status = dg.define_asset_job(
        f"{study.name}__status",
        stored,
        description="Check that all files are stored, intact and fresh.",
        tags=run_tags(study),
    )
    return [*jobs, status]

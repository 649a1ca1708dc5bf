"""Assets of a setting that need no gradients: its queries, their token ids and their candidates."""

import logging
from collections.abc import Sequence

import dagster as dg
import polars as pl

from gradsim.candidates import bm25_candidates
from gradsim.environment import read_environment
from gradsim.progress import WorkDone, in_steps
from gradsim.queries import QueryContext, make_queries
from gradsim.study import Study
from gradsim.study.partitions import select_partitions
from gradsim.tables import Lineage, Store
from gradsim_assets.asset_specs import table_asset
from gradsim_assets.assets.dataset import tokenize_samples
from gradsim_assets.assets.gradients import job_asset
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.io_manager import EXCLUDED, MODEL_NAME
from resources.messages import log_progress
from resources.storage import StorageResource


def variant_assets(lineage: Lineage, name: str, dispatch: Dispatch) -> list[dg.AssetsDefinition]:
    """Return the partitioned assets `queries`, `tokenized` and `candidates` of a setting."""
    return [
        _queries(lineage, name, dispatch),
        _tokenized(lineage, name, dispatch),
        _candidates(lineage, name, dispatch),
    ]


def _queries(lineage: Lineage, name: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    study, key = lineage.study, lineage.key("queries", name)
    method = study.settings[name]
    if method.runs_model:
        return job_asset(lineage, key, set(method.kinds), dispatch)

    @table_asset(lineage, key, kinds=set(method.kinds), ins={"samples": lineage.key("samples")}, dispatch=dispatch)
    def queries(
        context: dg.AssetExecutionContext, samples: pl.DataFrame, storage: StorageResource
    ) -> dg.Output[pl.DataFrame]:
        originals = _plain_ids(samples)
        wanted = originals.filter(pl.col("id").is_in(_ids(study, samples, context.partition_keys)))
        method_context = query_context(storage.store(study), name, originals, context.log)
        made = make_queries(method, wanted, method_context)
        context.add_output_metadata(dict(made.measured))
        written_by = {MODEL_NAME: made.model} if made.model else {}
        return dg.Output(made.frame, metadata={EXCLUDED: dict(made.excluded), **written_by})

    return queries


_SILENT = logging.Logger("silent")


def query_context(store: Store, setting: str, originals: pl.DataFrame, log: logging.Logger = _SILENT) -> QueryContext:
    """Return the context for making a setting's queries without a local model.

    The API's address and key are read from the environment, so neither enters the run config.

    Args:
        store: The study's tables.
        setting: Name of the setting.
        originals: All originals of the study.
        log: Log for the expected spending and for progress.
    """
    return QueryContext(
        name=f"{store.study.name}/{setting}",
        seed=store.study.seed,
        ids=originals["id"].to_list(),
        trial=store.study.first_samples is not None,
        journals=store.journals,
        loss_on=store.study.chat.loss_on,
        base_url=read_environment().openai_base_url,
        progress=in_steps(
            lambda done, total: log_progress(log, WorkDone(f"{setting} paraphrases", done, total, "texts"))
        ),
        say=log.info,
    )


def _tokenized(lineage: Lineage, name: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    @table_asset(
        lineage,
        lineage.key("tokenized", name),
        kinds={"huggingface", "polars", "parquet"},
        ins={"queries": lineage.key("queries", name), "originals": lineage.key("tokenized")},
        dispatch=dispatch,
    )
    def tokenized(queries: pl.DataFrame, originals: pl.DataFrame, storage: StorageResource) -> dg.Output[pl.DataFrame]:
        kept = queries.join(originals.select("id"), on="id", how="semi", maintain_order="left")
        without_source = queries.join(originals.select("id"), on="id", how="anti", maintain_order="left")
        excluded = dict.fromkeys(without_source["id"], "its original is excluded")
        return tokenize_samples(storage.store(lineage.study), kept, excluded)

    return tokenized


def _candidates(lineage: Lineage, name: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    study = lineage.study

    @table_asset(
        lineage,
        lineage.key("candidates", name),
        kinds={"polars", "parquet"},
        ins={
            "samples": lineage.key("samples"),
            "originals": lineage.key("tokenized"),
            "queries": lineage.key("queries", name),
            "query_tokens": lineage.key("tokenized", name),
        },
        dispatch=dispatch,
    )
    def candidates(
        samples: pl.DataFrame, originals: pl.DataFrame, queries: pl.DataFrame, query_tokens: pl.DataFrame
    ) -> pl.DataFrame:
        corpus = samples.join(originals.select("id"), on="id", how="semi", maintain_order="left")
        kept = queries.join(query_tokens.select("id"), on="id", how="semi", maintain_order="left")
        return bm25_candidates(_plain_ids(corpus), _plain_ids(kept), top_k=study.top_k, part=study.bm25_part)

    return candidates


def _plain_ids(samples: pl.DataFrame) -> pl.DataFrame:
    """Return samples with string ids, as the functions for samples from any source expect them."""
    return samples.with_columns(pl.col("id").cast(pl.String))


def _ids(study: Study, samples: pl.DataFrame, partition_keys: Sequence[str]) -> list[str]:
    """Return the ids of the samples in these partitions."""
    wanted = select_partitions(study.partitions, partition_keys)
    return [sample for partition in wanted for sample in samples["id"][partition.start : partition.end]]

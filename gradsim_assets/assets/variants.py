"""Assets of a setting before any gradient: its queries, their token ids and their candidates."""

from collections.abc import Sequence

import dagster as dg
import polars as pl

from gradsim.candidates import bm25_candidates
from gradsim.queries import QueryFile, QueryMaker, WordDropout
from gradsim.study import (
    FileSetting,
    GenerateSetting,
    ImportedSetting,
    ParaphraseSetting,
    Setting,
    Study,
    WordDropoutSetting,
)
from gradsim.study.partitions import select_partitions
from gradsim.tables import Lineage
from gradsim_assets.assets.dataset import tokenize_samples
from gradsim_assets.assets.gradients import JobConfig, compute_tables
from gradsim_assets.describe import table_asset
from gradsim_assets.dispatch import Dispatch
from resources.compute import ComputeResource
from resources.gpu import GPUResource
from resources.paraphraser import ParaphraserResource
from resources.storage import StorageResource


def variant_assets(study: Study, name: str, setting: Setting, dispatch: Dispatch) -> list[dg.AssetsDefinition]:
    """`queries`, `tokenized` and `candidates` of one setting, by partition."""
    return [
        _queries(study, name, setting, dispatch),
        _tokenized(study, name, dispatch),
        _candidates(study, name, dispatch),
    ]


def _queries(study: Study, name: str, setting: Setting, dispatch: Dispatch) -> dg.AssetsDefinition:
    match setting:
        case FileSetting():
            # A trial takes the first samples; the file holds queries of all.
            maker = QueryFile(setting.path, ignore_others=study.first_samples is not None)
            return _made(study, name, maker, dispatch)
        case WordDropoutSetting():
            return _made(study, name, WordDropout(setting.every), dispatch)
        case ParaphraseSetting():
            return _paraphrased(study, name, setting, dispatch)
        case GenerateSetting():
            return _generated(study, name, dispatch)
        case ImportedSetting():
            raise ValueError(f"queries of {study.name}/{name} were imported, nothing makes them")


def _made(study: Study, name: str, maker: QueryMaker, dispatch: Dispatch) -> dg.AssetsDefinition:
    lineage = Lineage(study)

    @table_asset(
        lineage,
        lineage.key("queries", name),
        kinds={"polars", "parquet"},
        ins={"samples": lineage.key("samples")},
        dispatch=dispatch,
    )
    def queries(context: dg.AssetExecutionContext, samples: pl.DataFrame) -> pl.DataFrame:
        return maker.make(_plain_ids(samples), _ids(study, samples, context.partition_keys))

    return queries


def _paraphrased(study: Study, name: str, setting: ParaphraseSetting, dispatch: Dispatch) -> dg.AssetsDefinition:
    lineage = Lineage(study)

    @table_asset(
        lineage,
        lineage.key("queries", name),
        kinds={"openai", "polars", "parquet"},
        ins={"samples": lineage.key("samples")},
        dispatch=dispatch,
    )
    def queries(
        context: dg.AssetExecutionContext, samples: pl.DataFrame, paraphraser: ParaphraserResource
    ) -> pl.DataFrame:
        wanted = pl.col("id").is_in(_ids(study, samples, context.partition_keys))
        return paraphraser.paraphrase(_plain_ids(samples).filter(wanted), setting, study.seed, log=context.log.info)

    return queries


def _generated(study: Study, name: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    lineage = Lineage(study)
    key = lineage.key("queries", name)

    @table_asset(lineage, key, kinds={"torch", "huggingface", "parquet"}, dispatch=dispatch, runs_job=True)
    def queries(
        context: dg.AssetExecutionContext,
        config: JobConfig,
        storage: StorageResource,
        gpu: GPUResource,
        compute: ComputeResource,
    ) -> dg.MaterializeResult[None]:
        return next(compute_tables(context, study, [key], config, storage, gpu, compute))

    return queries


def _tokenized(study: Study, name: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    lineage = Lineage(study)

    @table_asset(
        lineage,
        lineage.key("tokenized", name),
        kinds={"huggingface", "polars", "parquet"},
        ins={
            "queries": lineage.key("queries", name),
            "originals": lineage.key("tokenized"),
        },
        dispatch=dispatch,
    )
    def tokenized(queries: pl.DataFrame, originals: pl.DataFrame, storage: StorageResource) -> dg.Output[pl.DataFrame]:
        kept = queries.join(originals.select("id"), on="id", how="semi", maintain_order="left")
        without_source = queries.join(originals.select("id"), on="id", how="anti", maintain_order="left")
        excluded = dict.fromkeys(without_source["id"], "its original is excluded")
        return tokenize_samples(study, storage.store(study), kept, excluded)

    return tokenized


def _candidates(study: Study, name: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    lineage = Lineage(study)

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
        return bm25_candidates(_plain_ids(corpus), _plain_ids(kept), top_k=study.top_k)

    return candidates


def _plain_ids(samples: pl.DataFrame) -> pl.DataFrame:
    """Ids as texts, as the functions that read samples from anywhere want them."""
    return samples.with_columns(pl.col("id").cast(pl.String))


def _ids(study: Study, samples: pl.DataFrame, partition_keys: Sequence[str]) -> list[str]:
    """Ids at the positions of these partitions."""
    wanted = select_partitions(study.partitions, partition_keys)
    return [sample for partition in wanted for sample in samples["id"][partition.start : partition.end]]

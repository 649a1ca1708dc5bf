"""Assets of the study itself: its original samples, its model, the originals' token ids, and its projections."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl

from gradsim import dataset, models, partition_job
from gradsim.dataset import samples
from gradsim.dataset.samples import LoadedSamples
from gradsim.dataset.turns import kind_of
from gradsim.errors import SampleError
from gradsim.queries import check_samples
from gradsim.study import FileDataset, HubDataset, HubModel, Layers, Study
from gradsim.study.model_configuration import ADAPTED
from gradsim.tables import Lineage, Store
from gradsim.tables.lineage import MODEL
from gradsim_assets.asset_specs import table_asset
from gradsim_assets.assets.gradients import JobConfig, measured_metadata, run_job
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.io_manager import EXCLUDED, FORMAT, MODEL_NAME, REVISION, TRUNCATED, materialized
from resources.compute import ComputeResource
from resources.storage import StorageResource


def dataset_assets(lineage: Lineage, dispatch: Dispatch) -> list[dg.AssetsDefinition]:
    """Return the assets `samples`, `model`, `layers` (if the study chooses some), `tokenized` and `projections`."""
    study = lineage.study
    model = _trained_model(lineage, dispatch) if study.model.training else _hub_model(lineage)
    chosen = [_layers(lineage, study.layers)] if study.layers else []
    return [_samples(lineage), model, *chosen, _tokenized(lineage), _projections(lineage)]


def _samples(lineage: Lineage) -> dg.AssetsDefinition:
    study = lineage.study
    origin = "huggingface" if isinstance(study.dataset, HubDataset) else "file"

    @table_asset(lineage, lineage.key("samples"), kinds={origin, "polars", "parquet"})
    def load_samples() -> dg.Output[pl.DataFrame]:
        loaded = load_originals(study)
        return dg.Output(loaded.frame, metadata={FORMAT: loaded.format, "not used": ", ".join(loaded.ignored) or "–"})

    return load_samples


def load_originals(study: Study) -> LoadedSamples:
    """Load and validate the study's samples.

    Raises:
        SampleError: The dataset cannot be loaded, contains invalid samples, or does not suit the method of a setting.
    """
    match study.dataset:
        case HubDataset(hub=source):
            loaded = dataset.load_hub(study.dataset, study.chat.loss_on)
        case FileDataset(path=path):
            loaded, source = samples.load_original_file(path, study.dataset, study.chat.loss_on), str(path)
    originals = samples.validate(loaded.frame, study.samples, source).head(study.size)
    for name, method in study.settings.items():
        try:
            check_samples(method, originals)
        except SampleError as error:
            raise SampleError(f"{source}: setting {name!r}: {error}") from error
    return replace(loaded, frame=originals)


def _hub_model(lineage: Lineage) -> dg.AssetsDefinition:
    study = lineage.study

    @table_asset(lineage, lineage.key("model"), kinds={"huggingface", "parquet"})
    def model(compute: ComputeResource) -> dg.Output[pl.DataFrame]:
        assert isinstance(study.model, HubModel)
        hub = study.model
        revision = models.fetch(hub.name, hub.revision, weights=compute.is_here, gguf=hub.gguf).revision
        if hub.adapter:
            adapter = models.fetch_adapter(hub.adapter, hub.adapter_revision, weights=compute.is_here)
            revision += ADAPTED + adapter.revision
        shown = " with adapter ".join(
            Path(each).name if Path(each).is_dir() else each for each in (hub.name, hub.adapter) if each
        )
        table = models.layers_table(study.model_configuration(revision))
        return dg.Output(table, metadata={MODEL_NAME: shown, REVISION: revision})

    return model


def _trained_model(lineage: Lineage, dispatch: Dispatch) -> dg.AssetsDefinition:
    key = lineage.key(MODEL)

    @table_asset(lineage, key, kinds={"torch", "huggingface", "parquet"}, dispatch=dispatch, runs_job=True)
    def model(
        context: dg.AssetExecutionContext, config: JobConfig, storage: StorageResource, compute: ComputeResource
    ) -> dg.MaterializeResult[None]:
        store = storage.store(lineage.study)
        result = run_job(context, store, [key], store.partitions(key), config, compute)
        return materialized(store, key, measured_metadata(result))

    return model


def _layers(lineage: Lineage, chosen: Layers) -> dg.AssetsDefinition:
    @table_asset(lineage, lineage.key("layers"), kinds={"polars", "parquet"}, ins={"model": lineage.key("model")})
    def layers(model: pl.DataFrame) -> dg.Output[pl.DataFrame]:
        of_study = model.filter(pl.col("layer").is_in(chosen.of(model["layer"].to_list())))
        share = sum(of_study["parameters"]) / sum(model["parameters"])
        plain = of_study.with_columns(pl.col("layer").cast(pl.String))  # to be encoded in the order of these layers
        return dg.Output(plain, metadata={"share of the model's parameters": share})

    return layers


def _projections(lineage: Lineage) -> dg.AssetsDefinition:
    @table_asset(lineage, lineage.key("projections"), kinds={"polars", "parquet"}, ins={"layers": lineage.layers_key})
    def projections(layers: pl.DataFrame) -> pl.DataFrame:
        return partition_job.projections_table(lineage.study, layers)

    return projections


def _tokenized(lineage: Lineage) -> dg.AssetsDefinition:
    @table_asset(
        lineage,
        lineage.key("tokenized"),
        kinds={"huggingface", "polars", "parquet"},
        ins={"originals": lineage.key("samples")},
    )
    def tokenized(originals: pl.DataFrame, storage: StorageResource) -> dg.Output[pl.DataFrame]:
        return tokenize_samples(storage.store(lineage.study), originals)

    return tokenized


def tokenize_samples(
    store: Store, wanted: pl.DataFrame, excluded: dict[str, str] | None = None
) -> dg.Output[pl.DataFrame]:
    """Tokenize samples, and return the table with the excluded samples as metadata.

    Args:
        store: The study's tables.
        wanted: Samples to tokenize.
        excluded: Samples that were excluded before (id -> reason), added to those that tokenization excludes.
    """
    source = store.model_configuration()
    model = models.load_description(source)
    tokenizer = models.RunningModel(source).tokenizer
    table = models.tokenize_for_study(wanted, store.study, tokenizer, model)
    tokens = table.frame.select("input_ids_prompt", "input_ids")
    merged = sum(whole[: len(prompt)] != prompt for prompt, whole in tokens.iter_rows())
    return dg.Output(
        table.frame,
        metadata={
            EXCLUDED: (excluded or {}) | table.excluded,
            TRUNCATED: table.truncated,
            **_encoding(store.study, wanted),
            "samples whose prompt's tokens differ from the conversation's": merged,
        },
    )


def _encoding(study: Study, wanted: pl.DataFrame) -> dict[str, str]:
    """Return metadata on how samples become tokens and labels."""
    match next(map(kind_of, wanted["messages"].head(1).to_list()), "conversations"):
        case "text":
            return {"chat template": "none", "loss on": "everything"}
        case "tokens":
            return {"chat template": "none", "loss on": "labels of the data"}
    return {"chat template": str(study.chat.file or study.template), "loss on": study.chat.loss_on}

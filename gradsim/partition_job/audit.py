"""Gradient audit of a setting: a few stored inner products compared with plain autograd."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
from transformers import PreTrainedModel

from gradsim.analysis import audited_pairs, gradient_audit
from gradsim.analysis.audit import DOT, ORIGINAL_SELF, QUERY_SELF
from gradsim.gradients.capture.precision import plain_arithmetic
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.models import load_model, resolve_device
from gradsim.partition_job.inputs import TokenSequence, sequences
from gradsim.partition_job.job import PartitionJob, Work, model_provenance
from gradsim.progress import Progress
from gradsim.study import ModelConfiguration, Reduction
from gradsim.tables import Store
from gradsim.tables.lineage import AUDIT, DOT_TABLES


def compute_audit(job: PartitionJob, store: Store, work: Work, progress: Progress) -> dict[str, int]:
    """Compute and write the audit, the only table in `work`.

    Returns:
        The number of backward passes.

    Raises:
        GradsimError: an error that the user can fix.
    """
    device = resolve_device(job.model.device)
    job = job.model_copy(update={"model": accurate(job.model)})
    setting = str(job.only_key.setting)
    read = {name: store.read(key) for name, key in store.lineage.analysis_inputs(AUDIT, setting).items()}
    pairs = audited_pairs(
        *(read[name] for name in (*DOT_TABLES, "query_tokens", "original_tokens")), seed=job.study.seed
    )
    queries = _samples(read["query_tokens"], pairs["query_id"])
    originals = _samples(read["original_tokens"], pairs["original_id"])
    model = load_model(job.model)
    reference = []
    for pair in pairs.iter_rows(named=True):
        with plain_arithmetic(model.device):
            query, original = queries[pair["query_id"]], originals[pair["original_id"]]
            numbers = _reference(model, query, original, store.layer_names, job.study.chat.loss)
        reference.append(
            numbers.select(
                *(pl.lit(pair[side], pairs.schema[side]).alias(side) for side in pairs.columns),
                pl.exclude("layer"),
                pl.col("layer").cast(store.layers),
            )
        )
        progress(2 * len(reference), 2 * len(pairs))
    audit = gradient_audit(pl.concat(reference), **{table: read[table] for table in DOT_TABLES})
    store.write(job.only_key, audit, provenance=model_provenance(job, store, device))
    return {"passes": 2 * len(pairs)}


def accurate(model: ModelConfiguration) -> ModelConfiguration:
    """Return the model configuration with the reference precision: float64 if the study uses it, else float32."""
    return replace(model, precision="float64" if model.precision == "float64" else "float32")


def _samples(tokenized: pl.DataFrame, ids: pl.Series) -> dict[str, TokenSequence]:
    """Return the tokenized samples with these ids, by id."""
    wanted = tokenized.join(ids.to_frame("id").unique(), on="id", how="semi")
    return {sample.id: sample for sample in sequences(wanted)}


def _reference(
    model: PreTrainedModel, query: TokenSequence, original: TokenSequence, layers: Sequence[str], reduction: Reduction
) -> pl.DataFrame:
    """Return the dot and the self dots of a pair, one row per layer."""
    # The query's gradient is kept on the host, so that the device holds only one gradient besides the model.
    of_query = {
        layer: gradient.cpu() for layer, gradient in reference_gradient(model, query, layers, reduction).items()
    }
    rows = []
    for layer, gradient in reference_gradient(model, original, layers, reduction).items():
        q, o = {layer: of_query.pop(layer).to(gradient.device)}, {layer: gradient}
        rows.append((layer, *reference_dots(q, o), *reference_dots(q, q), *reference_dots(o, o)))
    return pl.DataFrame(rows, schema=["layer", DOT, QUERY_SELF, ORIGINAL_SELF], orient="row")

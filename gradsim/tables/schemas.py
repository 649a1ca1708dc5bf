"""Schemas of all tables, with descriptions that the web UI shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from gradsim import analysis
from gradsim.analysis.schema import Column, Schema
from gradsim.errors import TableError

# Identifiers are stored dictionary-encoded: samples in dataset order, layers in model order.
IDENTIFIER = pl.Enum


@dataclass(frozen=True, slots=True)
class TableSchema:
    """Description and columns of a table."""

    description: str
    columns: Mapping[str, Column]

    def empty(self) -> pl.DataFrame:
        """Return a frame without rows; identifiers are strings until they are stored."""
        return pl.DataFrame(
            schema={
                name: pl.String if column.dtype is IDENTIFIER else column.dtype for name, column in self.columns.items()
            }
        )

    def conform(self, frame: pl.DataFrame, name: str) -> pl.DataFrame:
        """Return the frame with exactly these columns in this order.

        Raises:
            TableError: a column is missing or has the wrong type.
        """
        if missing := [column for column in self.columns if column not in frame.columns]:
            raise TableError(f"table {name}: column {missing[0]!r} is missing; it has {', '.join(frame.columns)}")
        frame = frame.select(self.columns.keys())
        for column, specification in self.columns.items():
            if frame.schema[column] != specification.dtype:
                raise TableError(
                    f"table {name}: column {column!r} is {frame.schema[column]}, not {specification.dtype}"
                )
        return frame


ID_LIST = pl.List(pl.Int32)
QUERY = Column(IDENTIFIER, "rewritten sample; has the id of its source")
ORIGINAL = Column(IDENTIFIER, "training sample that the query is compared with")
RANK = Column(pl.Int32, "rank among the query's candidates; 0 is BM25's best")
LAYER = Column(IDENTIFIER, "name of the parameter tensor in model.named_parameters()")
SIMILARITY = Column(pl.Float64, "cosine similarity of the full gradients over all layers")
PROJECTION = Column(pl.String, "name of the projection: its kind and scaling")
DIMENSION = Column(pl.Int64, "dimensions of the projected gradient over all layers")
PROJECTOR = Column(pl.String, "name of the projection: its kind and size")
LOSS = Column(
    pl.Float64,
    "mean cross-entropy over the sample's unmasked labels, in nats; the same in every layer. Below 0.5, float32 "
    "gradients are less precise: expect relative errors of up to 2e-5 / loss, at most 2e-3",
)
NOISE = Column(pl.Boolean, "whether the layer's gradient is only rounding noise; per-layer analyses omit such layers")

_MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
_LAYER_SIZES = {
    "layer": LAYER,
    "shape": Column(pl.List(pl.Int64), "shape of the tensor"),
    "parameters": Column(pl.Int64, "number of elements"),
}


LAYERS = frozenset({"layer", "other_layer"})
IDENTIFIERS = frozenset({"id", "query_id", "original_id", "chosen_id", "best_other_id"}) | LAYERS


def _schema(description: str, **columns: Column) -> TableSchema:
    return TableSchema(description, MappingProxyType(columns))


def _analysis(description: str, schema: Schema) -> TableSchema:
    columns = {
        column: Column(IDENTIFIER if column in IDENTIFIERS else dtype, meaning)
        for column, (dtype, meaning) in schema.items()
    }
    return TableSchema(description, MappingProxyType(columns))


SCHEMAS: Mapping[str, TableSchema] = MappingProxyType(
    {
        "samples": _schema(
            "Originals: the training samples, in dataset order.",
            id=Column(IDENTIFIER, "id of the sample"),
            messages=Column(_MESSAGES, "a user message and an assistant message"),
        ),
        "queries": _schema(
            "Rewritten samples, each with the id of its true source.",
            id=Column(IDENTIFIER, "id of the query and of its true source"),
            messages=Column(_MESSAGES, "the rewritten user message and assistant message"),
            seeds=Column(pl.List(pl.Int64), "sampling seed of each message; null if none was used"),
            finish_reasons=Column(
                pl.List(pl.String), "finish reason of each message: stop, length, ...; null if unknown"
            ),
            faults=Column(pl.List(pl.List(pl.String)), "faults found in each rewritten message"),
        ),
        "model": _schema(
            "Parameter tensors of the studied model, in model order.",
            **_LAYER_SIZES,
        ),
        "layers": _schema(
            "Layers that the study chooses, in model order; the gradients of no others are compared.",
            **_LAYER_SIZES,
        ),
        "tokenized": _schema(
            "Token ids of the samples in the chat template of the study; labels without a loss are masked.",
            id=Column(IDENTIFIER, "id of the sample"),
            input_ids_prompt=Column(ID_LIST, "token ids of the prompt and the assistant cue"),
            input_ids=Column(ID_LIST, "token ids of the whole dialogue"),
            labels=Column(ID_LIST, "input_ids, with -100 at masked positions"),
        ),
        "candidates": _schema(
            "Originals that each query is compared with.",
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            score=Column(pl.Float64, "BM25 score of the original's prompt, answer or both for the query's"),
            forced=Column(pl.Boolean, "whether the row is the true source, added because BM25 did not find it"),
        ),
        "dot_products": _schema(
            "Inner products of the gradients of queries and candidates, per layer.",
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            layer=LAYER,
            dot=Column(pl.Float64, "inner product of the two gradients in this layer"),
        ),
        "query_self": _schema(
            "Squared norms of the queries' gradients, per layer.",
            query_id=QUERY,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the gradient with itself in this layer"),
            loss=LOSS,
            noise=NOISE,
        ),
        "original_self": _schema(
            "Squared norms of the gradients of candidate originals, per layer.",
            original_id=ORIGINAL,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the gradient with itself in this layer"),
            loss=LOSS,
            noise=NOISE,
        ),
        "gradient_similarity": _schema(
            "Cosine similarities of full gradients.",
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            similarity=SIMILARITY,
        ),
        "projected_similarity": _schema(
            "Cosine similarities of randomly projected gradients.",
            projection=PROJECTION,
            dimension=DIMENSION,
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            similarity=Column(pl.Float64, "cosine similarity of the two projected gradients"),
        ),
        "projected_dots": _schema(
            "Inner products of randomly projected gradients, per layer, with unbiased scaling.",
            projection=PROJECTOR,
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            layer=LAYER,
            dot=Column(pl.Float64, "inner product of the two projected gradients in this layer"),
        ),
        "projected_query_self": _schema(
            "Squared norms of the queries' projected gradients, per layer.",
            projection=PROJECTOR,
            query_id=QUERY,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the projected gradient with itself in this layer"),
        ),
        "projected_original_self": _schema(
            "Squared norms of the projected gradients of candidate originals, per layer.",
            projection=PROJECTOR,
            original_id=ORIGINAL,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the projected gradient with itself in this layer"),
        ),
        "projections": _schema(
            "Dimensions of each layer in the study's random projections.",
            projection=PROJECTION,
            dimension=DIMENSION,
            kind=Column(pl.String, "kind of the projection"),
            scaling=Column(pl.String, "unbiased, or as_published: each layer is weighted by its dimensions"),
            projector=PROJECTOR,
            layer=LAYER,
            parameters=Column(pl.Int64, "number of elements of the layer"),
            layer_dimension=Column(pl.Int64, "dimensions of the layer; equal to parameters if it is not projected"),
        ),
        "gradient_index": _schema(
            "Projected gradients of the originals for `gradsim query`, one memory-mapped Arrow file per partition.",
            id=Column(IDENTIFIER, "id of the original"),
            vector=Column(pl.List(pl.Float32), "projected gradient, layer after layer, each divided by its scale"),
            scale=Column(pl.List(pl.Float32), "divisor of each layer's part"),
            self_dot=Column(pl.List(pl.Float64), "inner product of each layer's part with itself"),
        ),
        **{name: _analysis(question.description, question.schema) for name, question in analysis.QUESTIONS.items()},
        "gradient_audit": _analysis(
            "Stored inner products compared with plain autograd for a few pairs: those of the longest and the most "
            "memorised sample, and random ones.",
            analysis.GRADIENT_AUDIT,
        ),
        "parameters_per_layer": _analysis("Sizes of the model's layers.", analysis.PARAMETERS_PER_LAYER),
        "selection_transfer": _analysis(
            "Values of one setting's layer selections in the other settings.", analysis.SELECTION_TRANSFER
        ),
    }
)

"""Columns of every table, with what they mean. Readers and the web UI show these texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from gradsim import analysis
from gradsim.errors import TableError

# Identifiers are stored dictionary-encoded: samples in dataset order, layers in the model's order.
IDENTIFIER = pl.Enum


@dataclass(frozen=True, slots=True)
class Column:
    """Data type and meaning of a column."""

    dtype: pl.DataType | type[pl.DataType]
    description: str


@dataclass(frozen=True, slots=True)
class TableSchema:
    """What a table holds, a row and a column at a time."""

    description: str
    columns: Mapping[str, Column]

    def empty(self) -> pl.DataFrame:
        """No rows; identifiers are texts until they are stored."""
        return pl.DataFrame(
            schema={
                name: pl.String if column.dtype is IDENTIFIER else column.dtype for name, column in self.columns.items()
            }
        )

    def conform(self, frame: pl.DataFrame, name: str) -> pl.DataFrame:
        """The frame with exactly these columns in this order.

        Raises:
            TableError: a column is missing, or has another type.
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
QUERY = Column(IDENTIFIER, "the rewritten sample whose source is looked for; bears its source's id")
ORIGINAL = Column(IDENTIFIER, "the training sample it is compared with")
RANK = Column(pl.Int32, "place among the query's candidates, 0 is BM25's best")
LAYER = Column(IDENTIFIER, "parameter tensor, as model.named_parameters() names it")
SIMILARITY = Column(pl.Float64, "cosine of the two whole gradients, all layers together")
PROJECTION = Column(pl.String, "name of the projection: its kind and how it is scaled")
DIMENSION = Column(pl.Int64, "dimensions of the projected gradient, all layers together")
PROJECTOR = Column(pl.String, "name of the projection: its kind and size")
LOSS = Column(
    pl.Float64,
    "the sample's mean cross-entropy over its unmasked labels, in nats; the same in every layer. Below 0.5, float32 "
    "keeps fewer digits of the gradient: expect relative errors of up to 2e-5 / loss, 2e-3 at most",
)
NOISE = Column(pl.Boolean, "whether the layer's gradient is only rounding; analyses by layer leave such layers out")

_MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))


LAYERS = frozenset({"layer", "other_layer"})
IDENTIFIERS = frozenset({"id", "query_id", "original_id", "chosen_id", "best_other_id"}) | LAYERS


def _schema(description: str, **columns: Column) -> TableSchema:
    return TableSchema(description, MappingProxyType(columns))


def _analysis(description: str, schema: analysis.Schema) -> TableSchema:
    columns = {
        column: Column(IDENTIFIER if column in IDENTIFIERS else dtype, meaning)
        for column, (dtype, meaning) in schema.items()
    }
    return TableSchema(description, MappingProxyType(columns))


SCHEMAS: Mapping[str, TableSchema] = MappingProxyType(
    {
        "samples": _schema(
            "Originals: the training samples, in dataset order.",
            id=Column(IDENTIFIER, "the sample's name"),
            messages=Column(_MESSAGES, "a user message and an assistant message"),
        ),
        "queries": _schema(
            "Rewritten samples, each with the id of its true source.",
            id=Column(IDENTIFIER, "id of the query and of its true source"),
            messages=Column(_MESSAGES, "the rewritten user message and assistant message"),
            seeds=Column(pl.List(pl.Int64), "seed that each message was rewritten with; null where none was used"),
            finish_reasons=Column(
                pl.List(pl.String), "why each message's model came to its end: stop, length, ...; null where unknown"
            ),
            faults=Column(pl.List(pl.List(pl.String)), "what may be wrong with each rewritten message"),
        ),
        "model": _schema(
            "Parameter tensors of the studied model, in model order.",
            layer=LAYER,
            shape=Column(pl.List(pl.Int64), "the tensor's shape"),
            parameters=Column(pl.Int64, "number of its elements"),
        ),
        "tokenized": _schema(
            "Samples in the tulu chat format as token ids; all but the answer and its end token is masked.",
            id=Column(IDENTIFIER, "the sample's name"),
            input_ids_prompt=Column(ID_LIST, "token ids of the prompt with the assistant's opening"),
            input_ids=Column(ID_LIST, "token ids of the whole dialogue"),
            labels=Column(ID_LIST, "input_ids, with -100 where the loss does not look"),
        ),
        "candidates": _schema(
            "Originals that a query is compared with.",
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            score=Column(pl.Float64, "BM25 score of the original's prompt for the query's prompt"),
            forced=Column(pl.Boolean, "the true source, put in by rule because BM25 had not found it"),
        ),
        "dot_products": _schema(
            "Inner products of a query's and a candidate's gradient, layer by layer.",
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            layer=LAYER,
            dot=Column(pl.Float64, "inner product of the two gradients in this layer"),
        ),
        "query_self": _schema(
            "Squared norms of the queries' gradients, layer by layer.",
            query_id=QUERY,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the gradient with itself in this layer"),
            loss=LOSS,
            noise=NOISE,
        ),
        "original_self": _schema(
            "Squared norms of the gradients of the originals met, layer by layer.",
            original_id=ORIGINAL,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the gradient with itself in this layer"),
            loss=LOSS,
            noise=NOISE,
        ),
        "gradient_similarity": _schema(
            "Cosines of whole gradients.",
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            similarity=SIMILARITY,
        ),
        "projected_similarity": _schema(
            "Cosines of randomly projected gradients.",
            projection=PROJECTION,
            dimension=DIMENSION,
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            similarity=Column(pl.Float64, "cosine of the two projected gradients"),
        ),
        "projected_dots": _schema(
            "Inner products of randomly projected gradients, layer by layer, rightly scaled.",
            projection=PROJECTOR,
            query_id=QUERY,
            original_id=ORIGINAL,
            rank=RANK,
            layer=LAYER,
            dot=Column(pl.Float64, "inner product of the two projected gradients in this layer"),
        ),
        "projected_query_self": _schema(
            "Squared norms of the queries' projected gradients, layer by layer.",
            projection=PROJECTOR,
            query_id=QUERY,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the projected gradient with itself in this layer"),
        ),
        "projected_original_self": _schema(
            "Squared norms of the projected gradients of the originals met, layer by layer.",
            projection=PROJECTOR,
            original_id=ORIGINAL,
            layer=LAYER,
            self_dot=Column(pl.Float64, "inner product of the projected gradient with itself in this layer"),
        ),
        "projections": _schema(
            "The study's random projections: how many dimensions each layer gets.",
            projection=PROJECTION,
            dimension=DIMENSION,
            kind=Column(pl.String, "kind of the projection"),
            scaling=Column(pl.String, "unbiased; or as_published: each layer counts as often as it has dimensions"),
            projector=PROJECTOR,
            layer=LAYER,
            parameters=Column(pl.Int64, "elements of the layer"),
            layer_dimension=Column(pl.Int64, "dimensions of the layer; as many as it has elements: kept whole"),
        ),
        "gradient_index": _schema(
            "The originals' projected gradients, one memory-mapped Arrow file a partition, for `gradsim query`.",
            id=Column(IDENTIFIER, "the original"),
            vector=Column(pl.List(pl.Float32), "projected gradient, layer after layer, each divided by its scale"),
            scale=Column(pl.List(pl.Float32), "what each layer's part was divided by"),
            self_dot=Column(pl.List(pl.Float64), "inner product of each layer's part with itself"),
        ),
        **{name: _analysis(question.description, question.schema) for name, question in analysis.QUESTIONS.items()},
        "gradient_audit": _analysis(
            "Proof: stored dots beside those of plain autograd, for a few pairs: those of the longest and the most "
            "memorised sample, and others drawn at random.",
            analysis.GRADIENT_AUDIT,
        ),
        "parameters_per_layer": _analysis("Which part of the model is how large.", analysis.PARAMETERS_PER_LAYER),
        "selection_transfer": _analysis(
            "What one setting's selections of layers are worth in another.", analysis.SELECTION_TRANSFER
        ),
    }
)

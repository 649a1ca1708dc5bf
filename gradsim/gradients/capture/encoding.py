"""Validation and encoding of samples and pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.models.limits import learned_positions, vocabulary_size

Integers = NDArray[np.int64]

MASKED = -100
"""Label of positions that the loss ignores."""


class Sample(Protocol):
    """Interface of a sample for `compare`: 1-D lists, arrays or tensors of equal length."""

    @property
    def id(self) -> str:
        """Identifier for messages."""

    @property
    def input_ids(self) -> Any:
        """Token ids, (T,)."""

    @property
    def labels(self) -> Any:
        """Token ids, (T,), with -100 at positions that the loss ignores."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sample on the host.

    Attributes:
        id: sample id, for messages.
        tokens: (T,) input ids.
        positions: (n,) positions with an output that predicts an unmasked label, ascending.
        targets: (n,) labels predicted at these positions.
    """

    id: str
    tokens: Integers
    positions: Integers
    targets: Integers

    @property
    def key(self) -> tuple[str, bytes, bytes, bytes]:
        """Key that is equal exactly for samples with the same id, input ids and effective labels."""
        return (self.id, self.tokens.tobytes(), self.positions.tobytes(), self.targets.tobytes())


@dataclass(frozen=True)
class Limits:
    """Input and output limits of a model.

    Attributes:
        vocabulary: number of valid input ids, the rows of the input embedding.
        outputs: number of valid labels, the rows of the head.
        positions: maximum length of the table of learned positions, or None without such a table.
    """

    vocabulary: int
    outputs: int
    positions: int | None


def model_limits(model: PreTrainedModel) -> Limits:
    """Return the limits of a model, read from its tensors; the model may be on the `meta` device.

    Raises:
        GradientError: The model has no single table of token embeddings.
    """
    words: Any = model.get_input_embeddings()
    if not isinstance(getattr(words, "weight", None), Tensor):
        raise GradientError(
            f"{type(model).__name__} looks tokens up in a {type(words).__name__}, not in one embedding table: "
            "give a model that reads one sequence of tokens"
        )
    vocabulary = vocabulary_size(model)
    head: Any = model.get_output_embeddings()
    return Limits(
        vocabulary=vocabulary,
        outputs=vocabulary if head is None else head.weight.shape[0],
        positions=learned_positions(model),
    )


def encode(sample: Sample, limits: Limits) -> Encoded:
    """Validate and encode a sample, with labels shifted to the positions that predict them and masked labels removed.

    Raises:
        GradientError: The input ids and labels are inconsistent or do not fit the model.
    """
    tokens = _integers(sample, "input_ids")
    labels = _integers(sample, "labels")
    if len(tokens) == 0:
        raise GradientError(f"sample {sample.id!r} is empty: give it at least two input_ids")
    if len(tokens) != len(labels):
        raise GradientError(
            f"sample {sample.id!r} has {len(tokens)} input_ids but {len(labels)} labels: give one label for each id"
        )
    positions = np.flatnonzero(labels[1:] != MASKED)
    targets = labels[1:][positions]
    for name, ids, rows, table in (
        ("input_ids", tokens, limits.vocabulary, f"vocabulary of {limits.vocabulary}"),
        ("labels", targets, limits.outputs, f"{limits.outputs} outputs of the model's head"),
    ):
        outside = ids[(ids < 0) | (ids >= rows)]
        if len(outside):
            raise GradientError(
                f"sample {sample.id!r} has {name} outside the {table}, "
                f"first {outside[0]}: tokenize it with the model's own tokenizer"
            )
    if limits.positions is not None and len(tokens) > limits.positions:
        raise GradientError(
            f"sample {sample.id!r} has {len(tokens)} tokens, but the model has only "
            f"{limits.positions} learned positions: shorten or exclude it"
        )
    return Encoded(sample.id, tokens, positions, targets)


def pair_positions(pairs: Any, n_queries: int, n_originals: int) -> Integers:
    """Return the pairs as an (n, 2) array of positions in queries and originals; "all" is every pair, query-major.

    Raises:
        GradientError: `pairs` is empty, is not an (n, 2) array of integers, or has positions out of range.
    """
    array = _every_pair(n_queries, n_originals) if isinstance(pairs, str) and pairs == "all" else _array(pairs)
    if array.size == 0:
        raise GradientError("there are no pairs to compare: give at least one query, one original and one pair")
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        raise GradientError(
            f'pairs has shape {array.shape} and type {array.dtype}: give an (n, 2) array of integers, or "all"'
        )
    for column, (name, count) in enumerate((("query", n_queries), ("original", n_originals))):
        outside = np.flatnonzero((array[:, column] < 0) | (array[:, column] >= count))
        if len(outside):
            raise GradientError(
                f"pair {outside[0]} refers to {name} {array[outside[0], column]}, "
                f"but there are {count}: positions run from 0 to {count - 1}"
            )
    return array.astype(np.int64)


def _every_pair(n_queries: int, n_originals: int) -> Integers:
    positions = np.arange(n_queries * n_originals, dtype=np.int64)
    return np.stack(np.divmod(positions, max(n_originals, 1)), axis=1)


@dataclass(frozen=True)
class Nodes:
    """Queries and originals as nodes; equal samples share a node and run only once.

    Attributes:
        samples: sample of each node.
        queries: (queries,) node of each query.
        originals: (originals,) node of each original.
    """

    samples: list[Encoded]
    queries: Integers
    originals: Integers

    @classmethod
    def of(cls, queries: Sequence[Encoded], originals: Sequence[Encoded]) -> "Nodes":
        """Assign nodes to the samples in order of first appearance, queries first."""
        numbers: dict[tuple[str, bytes, bytes, bytes], int] = {}
        samples: list[Encoded] = []
        for sample in (*queries, *originals):
            if sample.key not in numbers:
                numbers[sample.key] = len(samples)
                samples.append(sample)
        query_nodes, original_nodes = (
            np.array([numbers[sample.key] for sample in group], dtype=np.int64) for group in (queries, originals)
        )
        return cls(samples, query_nodes, original_nodes)

    def of_pairs(self, pairs: Integers) -> Integers:
        """Convert (n, 2) pairs of positions to (n, 2) pairs of nodes."""
        return np.stack([self.queries[pairs[:, 0]], self.originals[pairs[:, 1]]], axis=1)


def _integers(sample: Sample, name: str) -> Integers:
    array = _array(getattr(sample, name))
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise GradientError(
            f"sample {sample.id!r} has {name} of shape {array.shape} and type {array.dtype}: "
            "give a 1-D list of integers"
        )
    return array.astype(np.int64)


def _array(values: Any) -> NDArray[Any]:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values)

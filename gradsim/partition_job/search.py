"""The originals nearest to a text that no table knows: its projected gradient against all that are stored."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.analysis.projections import Gram, cosine_variance, inverse_dimensions
from gradsim.chat import tokenize
from gradsim.errors import SampleError
from gradsim.gradients.vectors import projected_gradients
from gradsim.models import load_model, load_tokenizer
from gradsim.partition_job.inputs import TokenSequence
from gradsim.partition_job.study_projections import projector_of
from gradsim.study import ModelConfiguration, Study
from gradsim.tables.index import IndexFile, StoredVectors

Floats = NDArray[np.float64]

# Elements of stored vectors that are made float32 at a time.
_AT_ONCE = 1 << 22

# Products that are added up in float32 before float64 takes over.
_LONGEST_FLOAT32_SUM = 1 << 14


class Searcher:
    """Finds the originals nearest to texts; the model is loaded once.

    Args:
        study: one that stores projected gradients.
        index: the files of its gradient index.
        model: to load, as the index was made with.
        memory_budget: bytes for a pass and the projection; None: what is free, less a margin.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(
        self, study: Study, index: Sequence[Path], model: ModelConfiguration, memory_budget: int | None = None
    ) -> None:
        self._paths = index
        self._study = study
        self._memory_budget = memory_budget
        self._tokenizer = load_tokenizer(model.name, model.revision)
        self._model: PreTrainedModel = load_model(model)
        self._precision = model.precision
        self._parameters = np.array([parameter.numel() for parameter in self._model.parameters()])

    def nearest(self, text: str, answer: str) -> pl.DataFrame:
        """All originals by the similarity of their projected gradients to that of a prompt and its answer.

        Returns:
            As `nearest_originals`.

        Raises:
            SampleError: a text is empty.
            GradientError: the gradient is not finite, or does not fit the memory.
        """
        stored = self._study.stored_projection
        assert stored is not None
        gradients = projected_gradients(
            self._model,
            [self._encoded(text, answer)],
            projector_of(stored, self._study),
            precision=self._precision,
            memory_budget=self._memory_budget,
        )
        with closing(gradients):
            _, query = next(gradients)
        with ExitStack() as opened:
            files = [opened.enter_context(IndexFile(path)) for path in self._paths]
            return nearest_originals(
                query, files, kind=stored.kind, parameters=self._parameters, weighted=stored.scaling == "as_published"
            )

    def _encoded(self, text: str, answer: str) -> TokenSequence:
        for what, content in (("text", text), ("answer", answer)):
            if not content.strip():
                raise SampleError(f"the {what} is empty; give some words")
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        sample = tokenize(messages, self._tokenizer, sample_id="query")
        return TokenSequence("query", sample.input_ids, sample.labels)


def nearest_originals(
    query: NDArray[np.floating],
    files: Iterable[IndexFile],
    *,
    kind: str,
    parameters: NDArray[np.int64],
    weighted: bool = False,
) -> pl.DataFrame:
    """All stored samples with the cosine of their projected gradients and the query's, the most similar first.

    Args:
        query: its projected gradient, (width,), laid out as the files' headers say.
        files: of one study's index.
        kind: of the projection.
        parameters: (layers,) elements of each layer.
        weighted: whether each layer counts as often as it has dimensions, as published; else once.

    Returns:
        `original_id`, `similarity`, and `standard_error`, by which a similarity is likely to differ from that of the
        whole gradients (null for kinds whose error needs more than dots). Of equals the one that is stored first
        comes first.
    """
    frames = [pl.DataFrame(schema={"original_id": pl.String, "similarity": pl.Float64, "standard_error": pl.Float64})]
    for file in files:
        slices = file.header.layout.slices
        dimensions = np.array(list(file.header.dimensions.values()), dtype=np.float64)
        weights = dimensions if weighted else np.ones_like(dimensions)
        inverse = inverse_dimensions(kind, dimensions, parameters)
        own = np.array([float(query[place].astype(np.float64) @ query[place]) for place in slices])
        for stored in file.batches():
            gram = Gram(_dots(query, stored, slices), np.tile(own, (len(stored.ids), 1)), stored.self_dots)
            error = None if inverse is None else np.sqrt(cosine_variance(gram, weights, inverse))
            columns = {"original_id": stored.ids, "similarity": gram.cosine(weights), "standard_error": error}
            frames.append(pl.DataFrame(columns, schema=frames[0].schema))
    return pl.concat(frames).sort("similarity", descending=True, maintain_order=True)


def _dots(query: NDArray[np.floating], stored: StoredVectors, slices: Sequence[slice]) -> Floats:
    """(samples, layers) inner products, in float32 for some thousand elements, in float64 over them."""
    dots = np.zeros((len(stored.ids), len(slices)))
    wide = query.astype(np.float32)
    for layer, place in enumerate(slices):
        step = max(1, min(_LONGEST_FLOAT32_SUM, _AT_ONCE // max(1, len(stored.ids))))
        for start in range(place.start, place.stop, step):
            part = slice(start, min(start + step, place.stop))
            dots[:, layer] += stored.vectors[:, part].astype(np.float32) @ wide[part]
    return dots * stored.scales

"""Search for the originals nearest to a new text, by projected gradients."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.projections import Gram, cosine_variance, inverse_dimensions
from gradsim.chat import tokenize
from gradsim.errors import SampleError
from gradsim.gradients.vectors import projected_gradients
from gradsim.models import RunningModel, load_model
from gradsim.partition_job.inputs import TokenSequence
from gradsim.partition_job.study_projections import projector_of
from gradsim.study import ModelConfiguration, Study
from gradsim.study.datasets import TEXT
from gradsim.tables.index import IndexFile, StoredVectors

# Elements of stored vectors converted to float32 at a time.
_AT_ONCE = 1 << 22

# Maximum number of products summed in float32; the partial sums are added in float64.
_LONGEST_FLOAT32_SUM = 1 << 14


class Searcher:
    """Nearest-neighbor search with a model that is loaded once.

    Args:
        study: study that stores projected gradients.
        index: files of its gradient index.
        model: configuration of the model that the index was computed with.
        memory_budget: bytes for a pass and the projection; None: free memory less a margin.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(
        self, study: Study, index: Sequence[Path], model: ModelConfiguration, memory_budget: int | None = None
    ) -> None:
        self._paths = index
        self._study = study
        self._memory_budget = memory_budget
        self._tokenizer = RunningModel(model).tokenizer
        self._model: PreTrainedModel = load_model(model)
        self._precision = model.precision

    def nearest(self, text: str, answer: str | None = None) -> pl.DataFrame:
        """Return all originals, sorted by the similarity of their projected gradients to a prompt with its answer.

        Args:
            text: The prompt.
            answer: Its answer; None: the text is no prompt, but a sample as it is.

        Returns:
            See `nearest_originals`.

        Raises:
            SampleError: prompt or answer is empty.
            GradientError: the gradient is not finite, or does not fit in memory.
        """
        stored = self._study.stored_projection
        assert stored is not None
        with ExitStack() as opened:
            files = [opened.enter_context(IndexFile(path)) for path in self._paths]
            layers = list(files[0].header.dimensions)
            gradients = projected_gradients(
                self._model,
                [self._encoded(text, answer)],
                projector_of(stored, self._study),
                layers=layers,
                precision=self._precision,
                memory_budget=self._memory_budget,
            )
            with closing(gradients):
                _, query = next(gradients)
            sizes = {name: parameter.numel() for name, parameter in self._model.named_parameters()}
            return nearest_originals(
                query,
                files,
                kind=stored.kind,
                parameters=np.array([sizes[layer] for layer in layers]),
                weighted=stored.scaling == "as_published",
            )

    def _encoded(self, text: str, answer: str | None) -> TokenSequence:
        for what, content in (("text", text), ("answer", answer)):
            if content is not None and not content.strip():
                raise SampleError(f"the {what} is empty; enter some words")
        if answer is None:
            messages = [{"role": TEXT, "content": text}]
        else:
            messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        sample = tokenize(
            messages,
            self._tokenizer,
            template=self._study.template,
            loss_on=self._study.chat.loss_on,
            sample_id="query",
        )
        return TokenSequence("query", sample.input_ids, sample.labels)


def nearest_originals(
    query: NDArray[np.floating],
    files: Iterable[IndexFile],
    *,
    kind: str,
    parameters: Positions,
    weighted: bool = False,
) -> pl.DataFrame:
    """Return all stored samples, sorted by the cosine similarity of their projected gradients to the query's.

    Args:
        query: (width,) projected gradient, in the layout of the files' headers.
        files: index files of one study.
        kind: kind of the projection.
        parameters: (layers,) number of elements of each layer.
        weighted: whether to weight each layer by its dimensions, as published.

    Returns:
        `original_id`, `similarity` and `standard_error`, most similar first; ties keep the stored order. The standard
        error estimates the deviation from the cosine of the full gradients; it is null for kinds of projection that
        need more than dots to estimate it.
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
    """Return (samples, layers) inner products: float32 within chunks, float64 across chunks."""
    dots = np.zeros((len(stored.ids), len(slices)))
    wide = query.astype(np.float32)
    for layer, place in enumerate(slices):
        step = max(1, min(_LONGEST_FLOAT32_SUM, _AT_ONCE // max(1, len(stored.ids))))
        for start in range(place.start, place.stop, step):
            part = slice(start, min(start + step, place.stop))
            dots[:, layer] += stored.vectors[:, part].astype(np.float32) @ wide[part]
    return dots * stored.scales

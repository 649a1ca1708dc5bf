"""Search for the originals nearest to new samples, by projected gradients and by full ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.analysis.layer_dots import cosine
from gradsim.errors import SampleError
from gradsim.gradients import compare
from gradsim.gradients.vectors import Vector, projected_gradients
from gradsim.models import RunningModel, load_model, resolve_device, tokenize_for_study
from gradsim.partition_job.inputs import TokenSequence, sequences
from gradsim.partition_job.nearest import nearest_originals
from gradsim.partition_job.study_projections import projector_of
from gradsim.progress import Progress, WorkDone
from gradsim.study import ModelConfiguration
from gradsim.tables import Provenance, Store
from gradsim.tables.index import IndexFile
from gradsim.tables.lineage import INDEX
from gradsim.tables.provenance import QUERY_LOSS

# Bytes of the samples' vectors that are compared in one pass over the index.
_VECTOR_BYTES = 1 << 30

Report = Callable[[WorkDone], None]


@dataclass(frozen=True)
class Nearest:
    """The originals nearest to some samples.

    Attributes:
        frame: `query_id`, `original_id`, `rank` (0 for the nearest), and `similarity` and `standard_error` as of
            `nearest_originals`; also `exact_similarity` if it was asked for. Samples are in their order.
        originals: number of originals that each sample was compared with.
        provenance: model, revision, device and precision, and the samples that were excluded or truncated.
    """

    frame: pl.DataFrame
    originals: int
    provenance: Provenance


class Searcher:
    """Nearest-neighbor search with a model that is loaded once.

    Args:
        store: tables of a study that stores projected gradients.
        model: configuration of the model that the index was computed with.
        memory_budget: bytes for passes and the projection; None: free memory less a margin.

    Raises:
        StudyError: the study stores no projected gradients.
        TableError: the index is missing, damaged or of another definition.
        ModelError: the model cannot be loaded.
    """

    def __init__(self, store: Store, model: ModelConfiguration, memory_budget: int | None = None) -> None:
        self._paths = store.index()  # fails before the model is loaded, which takes longer
        self._store = store
        self._memory_budget = memory_budget
        self._tokenizer = RunningModel(model).tokenizer
        self._model: PreTrainedModel = load_model(model)
        self._precision = model.precision
        stored = store.provenance(store.lineage.key("model"))
        self._provenance = Provenance(
            model=stored.model,
            revision=stored.revision,
            fingerprint=store.lineage.fingerprint(store.lineage.key(INDEX)),
            device=resolve_device(model.device),
            precision=model.precision,
        )

    def nearest(
        self, samples: pl.DataFrame, top: int, *, exact: bool = False, report: Report = lambda work: None
    ) -> Nearest:
        """Return the `top` originals with the most similar projected gradients for each sample.

        The study's template, loss, `max_length`, `truncate`, `on_long_sample` and `on_bad_sample` apply to the samples.

        Args:
            samples: valid samples, `id` and `messages`.
            top: number of originals per sample.
            exact: whether to rank these originals by the cosine similarity of the full gradients.
            report: receives how far the work is.

        Raises:
            SampleError: a sample is too long or has no loss, or all samples are excluded.
            GradientError: a gradient is not finite, or does not fit in memory.
        """
        study = self._store.study
        try:
            tokenized = tokenize_for_study(samples, study, self._tokenizer, self._model)
        except SampleError as error:  # whose fix is another study
            raise SampleError(f"{str(error).partition('; ')[0]}; correct or remove it") from error
        queries = sequences(tokenized.frame)
        without_vector = {query.id: QUERY_LOSS for query in queries}
        with ExitStack() as opened:
            files = [opened.enter_context(IndexFile(path)) for path in self._paths]
            frames = []
            for group in self._vectors(queries, files[0], report):
                found = self._compared(np.stack([vector for _, vector in group], dtype=np.float32), files, top, report)
                ids = pl.Series("query_id", [queries[position].id for position, _ in group], pl.String)
                for query in ids:
                    del without_vector[query]
                frames.append(found.select(ids.gather(found["query"]), pl.exclude("query")))
            originals = sum(file.rows for file in files)
        excluded = tokenized.excluded | without_vector
        if not frames:
            sample, reason = next(iter(excluded.items()))
            others = ", and so is every other; correct them" if len(excluded) > 1 else "; correct it"
            raise SampleError(f"sample {sample!r} is excluded ({reason}){others}")
        frame = pl.concat(frames)
        if exact:
            frame = self._by_full_gradients(frame, {query.id: query for query in queries}, report)
        known = {"excluded": excluded, "truncated": tokenized.truncated}
        return Nearest(frame, originals, self._provenance.model_copy(update=known))

    def _vectors(
        self, queries: Sequence[TokenSequence], file: IndexFile, report: Report
    ) -> Iterator[list[tuple[int, Vector]]]:
        """Yield positions and projected gradients, as many at a time as are compared in one pass over the index."""
        study = self._store.study
        stored = study.stored_projection
        assert stored is not None
        vectors = projected_gradients(
            self._model,
            queries,
            projector_of(stored, study),
            layers=list(file.header.dimensions),
            precision=self._precision,
            memory_budget=self._memory_budget,
            progress=_reporting(report, "gradients of the texts", "texts"),
            on_bad_sample=study.on_bad_sample,
        )
        size = max(1, _VECTOR_BYTES // (np.dtype(np.float32).itemsize * file.header.layout.width))
        with closing(vectors):
            while group := list(islice(vectors, size)):
                yield group

    def _compared(
        self, vectors: NDArray[np.float32], files: Sequence[IndexFile], top: int, report: Report
    ) -> pl.DataFrame:
        stored = self._store.study.stored_projection
        assert stored is not None
        sizes = {name: parameter.numel() for name, parameter in self._model.named_parameters()}
        return nearest_originals(
            vectors,
            files,
            top,
            kind=stored.kind,
            parameters=np.array([sizes[layer] for layer in files[0].header.dimensions]),
            weighted=stored.scaling == "as_published",
            progress=_reporting(report, "comparing with the originals", "originals"),
        )

    def _by_full_gradients(
        self, frame: pl.DataFrame, queries: dict[str, TokenSequence], report: Report
    ) -> pl.DataFrame:
        """Return the hits of each sample, sorted by the cosine similarity of the full gradients."""
        store = self._store
        tokenized = store.read(store.lineage.key("tokenized")).with_columns(pl.col("id").cast(pl.String))
        originals = sequences(tokenized.join(frame, left_on="id", right_on="original_id", how="semi"))
        samples = [queries[name] for name in frame["query_id"].unique(maintain_order=True)]
        places = [{sample.id: place for place, sample in enumerate(side)} for side in (samples, originals)]
        pairs = np.array([[places[0][q], places[1][o]] for q, o in frame.select("query_id", "original_id").iter_rows()])
        compared = compare(
            self._model,
            samples,
            originals,
            pairs,
            layers=store.layer_names,
            precision=self._precision,
            memory_budget=self._memory_budget,
            progress=_reporting(report, "full gradients", "samples"),
            precision_of_memorised=store.study.model.precision_of_memorised,
        )
        similarity = cosine(
            compared.dots.sum(axis=1),
            compared.query_self_dots.sum(axis=1)[pairs[:, 0]],
            compared.original_self_dots.sum(axis=1)[pairs[:, 1]],
        )
        ordered = frame.with_columns(pl.Series("exact_similarity", similarity), place=pairs[:, 0]).sort(
            "place", "exact_similarity", descending=[False, True], maintain_order=True
        )
        rank = pl.int_range(pl.len(), dtype=pl.Int32).over("place")
        return ordered.with_columns(rank=rank).drop("place")


def _reporting(report: Report, what: str, unit: str) -> Progress:
    return lambda done, total: report(WorkDone(what, done, total, unit))

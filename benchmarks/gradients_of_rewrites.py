"""The bundled rewrites and their originals, with a model trained on the originals, and their whole gradients."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim import models
from gradsim.candidates import bm25_candidates
from gradsim.chat import tokenize_table
from gradsim.dataset import samples
from gradsim.environment import project_root
from gradsim.gradients import Projector
from gradsim.gradients.projection.vector_layout import VectorLayout
from gradsim.gradients.vectors import projected_gradients
from gradsim.partition_job.inputs import TokenSequence, sequences
from gradsim.study import ModelConfiguration

# About ten million parameters, as in the engine's benchmark; trained for a minute.
_LAYERS, _HIDDEN = 8, 256
_POSITIONS = 2048
_STEPS = 100
_CANDIDATES = 5


@dataclass(frozen=True, eq=False)
class Rewrites:
    """Queries, originals and their pairs.

    Attributes:
        model: the trained model.
        queries: inputs of the engine.
        originals: inputs of the engine.
        pairs: (queries · candidates, 2) positions; candidates of a query are adjacent.
        source: (pairs,) whether the original is the query's source.
    """

    model: PreTrainedModel
    queries: list[TokenSequence]
    originals: list[TokenSequence]
    pairs: NDArray[np.int64]
    source: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Gradients(Rewrites):
    """Rewrites with all gradients.

    Attributes:
        shapes: shapes of the layers.
        layout: position of each layer in a gradient.
        of_queries: (queries, parameters) float32 gradients.
        of_originals: (originals, parameters) float32 gradients.
    """

    shapes: dict[str, tuple[int, ...]]
    layout: VectorLayout
    of_queries: NDArray[np.float32]
    of_originals: NDArray[np.float32]


def rewrites_of(folder: Path, queries: int | None = None) -> Rewrites:
    """Train the model in a folder, unless it exists, and read the samples.

    Args:
        folder: folder of the model.
        queries: number of queries out of 60; None: all.
    """
    data = project_root() / "data/sample"
    originals, rewrites = (samples.load_file(data / f"{name}.jsonl") for name in ("originals", "paraphrases"))
    if not (folder / "config.json").exists():
        models.train_reference_model(
            originals, folder, layers=_LAYERS, hidden_size=_HIDDEN, positions=_POSITIONS, steps=_STEPS
        )
    model = models.load_model(ModelConfiguration(str(folder), device="cpu"))
    tokenizer = models.load_tokenizer(str(folder))
    rewrites = rewrites.head(rewrites.height if queries is None else queries)
    candidates = bm25_candidates(originals, rewrites, top_k=_CANDIDATES)
    places = [dict(zip(frame["id"], range(frame.height), strict=True)) for frame in (rewrites, originals)]
    pairs = np.array(
        [
            (places[0][query], places[1][original])
            for query, original in candidates.select("query_id", "original_id").iter_rows()
        ]
    )
    of_queries, of_originals = (
        sequences(tokenize_table(frame, tokenizer, context=_POSITIONS).frame) for frame in (rewrites, originals)
    )
    source = (candidates["query_id"].cast(pl.String) == candidates["original_id"].cast(pl.String)).to_numpy()
    return Rewrites(model, of_queries, of_originals, pairs, source)


def gradients(folder: Path, queries: int | None = None) -> Gradients:
    """Return the rewrites with every gradient; see `rewrites_of`."""
    data = rewrites_of(folder, queries)
    shapes = {name: tuple(parameter.shape) for name, parameter in data.model.named_parameters()}
    elements = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    # With its own size as dimension, every layer is kept whole.
    whole = Projector("mask", elements, 0, "whole")
    matrices = [
        np.stack([vector.astype(np.float32, copy=False) for _, vector in projected_gradients(data.model, group, whole)])
        for group in (data.queries, data.originals)
    ]
    return Gradients(
        **vars(data),
        shapes=shapes,
        layout=VectorLayout.of(elements),
        of_queries=matrices[0],
        of_originals=matrices[1],
    )


def tensors(rows: NDArray[np.float32], layer: slice, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Return views of one layer of all gradients, in the shape of the layer."""
    return [torch.from_numpy(row[layer]).view(shape) for row in rows]

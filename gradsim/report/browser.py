"""Data of the pair browser: queries, candidates, similarities by layer, and texts.

To stay small enough to open and share, the page contains only the best candidates of each query and, for large studies,
only the most interesting queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from gradsim.analysis import LayerDots, block_of, component_of
from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.layer_dots import cosine
from gradsim.plots.labels import layer_label, setting_label
from gradsim.report.data import SettingReport
from gradsim.report.downloads import packed, script_json

STEPS = 32767
"""Quantization of single-layer similarities: the integer that represents 1, for a resolution of 3e-5."""

MOST_PAIR_BYTES = 6_000_000
MOST_LETTERS = 8_000_000
BYTES_BESIDE_LAYERS = 16
"""Size of a pair's place, rank and overall similarity, in bytes."""

BEST_CANDIDATES = 10
CLOSEST = 50
MOST_DIVERGENT = 50

Texts = Mapping[str, list[tuple[str, str]]]
"""Roles and contents of each sample's messages, by sample id."""


@dataclass(frozen=True)
class Browsed:
    """Data of the pair browser for one setting.

    Attributes:
        setting: Name of the setting.
        index: Ids, decisions and candidates as JSON.
        similarities: Packed little-endian int16 array, (n_pairs, n_layers).
        texts: Packed JSON of the queries' messages; None if unavailable.
        originals: Ids of all candidates.
        left_out: Sentence on the omitted data; empty if the data are complete.
    """

    setting: str
    index: Markup
    similarities: str
    texts: str | None
    originals: set[str]
    left_out: str


@dataclass(frozen=True)
class _Chosen:
    """Pairs included in the page.

    Attributes:
        queries: Positions of the queries in the order of the study, (n,).
        pairs: Positions of the pairs, grouped by query, most similar first, (m,).
        places: Rank of each pair's similarity within its query, starting at 0, (m,).
        starts: Index of the first pair of each query, (n,).
    """

    queries: Positions
    pairs: Positions
    places: Positions
    starts: Positions


def layers_shown(settings: Sequence[SettingReport]) -> list[str]:
    """Return the layers that the pair browser shows: those with more than rounding noise in every setting."""
    every = [setting.layer_dots.layers.to_list() for setting in settings if setting.layer_dots]
    return [layer for layer in every[0] if all(layer in others for others in every)] if every else []


def described(layers: Sequence[str]) -> Markup:
    """Return label, component and block of each layer as JSON."""
    return script_json(
        [{"label": layer_label(name), "component": component_of(name), "block": block_of(name)} for name in layers]
    )


def browsed(setting: SettingReport, layers: Sequence[str], queries: Texts, originals: Texts) -> Browsed | None:
    """Return the pair browser's data of a setting, or None if inner products by layer are unavailable."""
    dots = setting.layer_dots
    if dots is None:
        return None
    decisions = _aligned(setting.tables["decisions"], dots.lists.query_ids)
    divergence = _divergence(setting, dots.lists.query_ids)
    similarity = dots.similarity()
    chosen = _chosen(dots, similarity, _in_order_of_interest(decisions, divergence), queries, originals)
    kept = decisions[chosen.queries]
    query_ids = kept["query_id"].to_list()
    candidates = dots.pairs["original_id"][chosen.pairs]
    return Browsed(
        setting=setting.setting,
        index=script_json(
            {
                "label": setting_label(setting.setting),
                "total": len(decisions),
                **_columns_of_queries(kept, None if divergence is None else divergence[chosen.queries]),
                "starts": chosen.starts.tolist(),
                "place": chosen.places.tolist(),
                **_columns_of_pairs(dots, chosen.pairs, candidates, similarity),
            }
        ),
        similarities=packed(_quantised(dots, chosen.pairs, layers)),
        texts=packed_texts({name: queries[name] for name in query_ids if name in queries}) if queries else None,
        originals=set(candidates),
        left_out=_left_out(dots, chosen),
    )


def packed_texts(texts: Texts) -> str:
    """Return the messages of samples as packed JSON, a list of role and content per id."""
    return packed(script_json(texts).encode())


def texts_by_id(samples: pl.DataFrame | None) -> Texts:
    """Return the messages of each sample as pairs of role and text; empty if `samples` is None."""
    if samples is None:
        return {}
    return {
        str(sample): [(message["role"], message["content"]) for message in messages]
        for sample, messages in samples.select("id", "messages").iter_rows()
    }


def _aligned(decisions: pl.DataFrame, query_ids: pl.Series) -> pl.DataFrame:
    """Return a table of queries in the order of `query_ids`."""
    order = pl.DataFrame({"query_id": query_ids.cast(pl.String)})
    return order.join(
        decisions.with_columns(pl.col("query_id").cast(pl.String)), on="query_id", how="left", maintain_order="left"
    )


def _divergence(setting: SettingReport, query_ids: pl.Series) -> pl.DataFrame | None:
    """Return `layer`, `cosine` and `rank` of each query, or None if there is no divergence table."""
    table = setting.tables.get("divergence")
    if table is None or table.is_empty():
        return None
    return _aligned(table, query_ids).select("layer", "cosine", "rank")


def _in_order_of_interest(decisions: pl.DataFrame, divergence: pl.DataFrame | None) -> Positions:
    """Return positions of queries: wrong ones by ascending margin, then close, divergent and all remaining ones."""
    margins = decisions["margin"].fill_null(np.inf).to_numpy()
    by_margin = np.argsort(margins, kind="stable")
    wrong = by_margin[decisions["credit"].to_numpy()[by_margin] < 1]
    close = np.argsort(np.abs(margins), kind="stable")[:CLOSEST]
    ranks = np.array([]) if divergence is None else divergence["rank"].to_numpy()
    divergent = np.argsort(ranks, kind="stable")[:MOST_DIVERGENT]
    every = np.concatenate([wrong, close, divergent, np.arange(len(decisions))]).astype(np.int64)
    _, first = np.unique(every, return_index=True)
    order: Positions = every[np.sort(first)]
    return order


def _chosen(dots: LayerDots, similarity: Floats, order: Positions, queries: Texts, originals: Texts) -> _Chosen:
    """Return the best pairs and the source of as many queries as fit into the page."""
    lists = dots.lists
    by_similarity = np.lexsort((-similarity, lists.query))
    bytes_a_pair = 2 * len(dots.layers) + BYTES_BESIDE_LAYERS
    place = np.arange(len(similarity)) - np.repeat(lists.starts, lists.lengths)
    kept = (place < BEST_CANDIDATES) | np.isin(by_similarity, lists.source)
    pairs, place = by_similarity[kept], place[kept]
    lengths = np.bincount(lists.query[pairs], minlength=len(order))

    letters = _letters(dots, pairs, lengths, order, queries, originals)
    fits = (np.cumsum(lengths[order] * bytes_a_pair) <= MOST_PAIR_BYTES) & (np.cumsum(letters) <= MOST_LETTERS)
    chosen = np.sort(order[: max(1, int(fits.sum()))])
    within = np.zeros(len(order), dtype=np.bool_)
    within[chosen] = True
    lengths, carried = lengths[chosen], within[lists.query[pairs]]
    return _Chosen(chosen, pairs[carried], place[carried], np.cumsum(lengths) - lengths)


def _letters(
    dots: LayerDots, pairs: Positions, lengths: Positions, order: Positions, queries: Texts, originals: Texts
) -> Positions:
    """Return the characters that each query in `order` adds to the page, (n,); each original counts once."""
    size = {name: sum(len(text) for _, text in messages) for name, messages in originals.items()}
    names = dots.pairs["original_id"][pairs].to_list()
    starts = np.cumsum(lengths) - lengths
    seen: set[str] = set()
    letters = np.zeros(len(order), dtype=np.int64)
    for place, query in enumerate(order):
        new = set(names[starts[query] : starts[query] + lengths[query]]) - seen
        seen |= new
        own = queries.get(str(dots.lists.query_ids[int(query)]), [])
        letters[place] = sum(len(text) for _, text in own) + sum(size.get(name, 0) for name in new)
    return letters


def _columns_of_queries(decisions: pl.DataFrame, divergence: pl.DataFrame | None) -> dict[str, object]:
    columns: dict[str, object] = {
        "queries": decisions["query_id"].to_list(),
        "credit": decisions["credit"].round(4).to_list(),
        "margin": decisions["margin"].round(6).to_list(),
        "chosen": decisions["chosen_id"].to_list(),
        "source": decisions["source_similarity"].round(6).to_list(),
        "other": decisions["best_other_similarity"].round(6).to_list(),
        "forced": decisions["forced"].to_list(),
        "closest": CLOSEST,
    }
    if divergence is not None:
        columns["divergence"] = {
            "layer": layer_label(str(divergence["layer"][0])),
            "cosine": divergence["cosine"].round(4).to_list(),
            "rank": divergence["rank"].to_list(),
            "most": MOST_DIVERGENT,
        }
    return columns


def _columns_of_pairs(
    dots: LayerDots, pairs: Positions, candidates: pl.Series, similarity: Floats
) -> dict[str, object]:
    names = candidates.unique(maintain_order=True)
    place = {name: position for position, name in enumerate(names)}
    return {
        "originals": names.to_list(),
        "candidate": [place[name] for name in candidates],
        "rank": dots.pairs["rank"].gather(pairs).to_list(),
        "similarity": np.round(similarity[pairs], 6).tolist(),
    }


def _quantised(dots: LayerDots, pairs: Positions, layers: Sequence[str]) -> bytes:
    """Return quantized similarities of the given pairs in the given layers as little-endian int16 bytes."""
    shown = dots.positions_of(layers)
    similarities = cosine(
        dots.dots[np.ix_(pairs, shown)],
        dots.query_self_dots[np.ix_(dots.lists.query[pairs], shown)],
        dots.original_self_dots[np.ix_(dots.original[pairs], shown)],
    )
    # Rounding can push a cosine beyond 1.
    steps: NDArray[np.int16] = np.rint(STEPS * similarities.clip(-1, 1)).astype("<i2")
    return steps.tobytes()


def _left_out(dots: LayerDots, chosen: _Chosen) -> str:
    """Return a description of the omitted queries and candidates."""
    parts = []
    if len(chosen.queries) < len(dots.lists.query_ids):
        parts.append(
            f"The page contains {len(chosen.queries):,} of {len(dots.lists.query_ids):,} queries: wrong and tied "
            "decisions first, then the closest and the most divergent ones."
        )
    if len(chosen.pairs) < int(dots.lists.lengths[chosen.queries].sum()):
        parts.append(f"It shows the {BEST_CANDIDATES} most similar candidates and the true source of each query.")
    return " ".join(parts)

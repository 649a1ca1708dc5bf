"""What the pair browser is given: queries, their candidates, similarities layer by layer, texts.

A page must stay small enough to be opened, read and sent, so that it keeps each query's best candidates only, and of
large studies the queries that are read first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from gradsim.analysis import LayerDots, block_of, component_of
from gradsim.analysis.layer_dots import cosine
from gradsim.plots.labels import layer_label, setting_label
from gradsim.report.blocks import packed, script_json
from gradsim.report.data import SettingReport

Positions = NDArray[np.int64]
Floats = NDArray[np.float64]

STEPS = 32767
"""A similarity by one layer is stored as a whole number of so many steps to 1: 3e-5 a step."""

MOST_PAIR_BYTES = 6_000_000
MOST_LETTERS = 8_000_000
BYTES_BESIDE_LAYERS = 16
"""Of a pair: its place, rank and whole similarity."""

BEST_CANDIDATES = 10
CLOSEST = 50
MOST_DIVERGENT = 50

Texts = Mapping[str, list[tuple[str, str]]]
"""Id of a sample -> roles and contents of its messages."""


@dataclass(frozen=True)
class Browsed:
    """A setting's part of the pair browser.

    Attributes:
        setting: its name.
        index: ids, decisions and candidates, as JSON.
        similarities: packed; of each pair, one signed number of two bytes (low byte first) a layer.
        texts: packed JSON of the queries' messages; None if they are not at hand.
        originals: ids of all candidates.
        left_out: what the page leaves out; empty if nothing.
    """

    setting: str
    index: Markup
    similarities: str
    texts: str | None
    originals: set[str]
    left_out: str


@dataclass(frozen=True)
class _Chosen:
    """Pairs that are kept.

    Attributes:
        queries: (n,) positions of queries, in the order of the study.
        pairs: (m,) positions of pairs, query by query, most similar first.
        places: (m,) place of each pair among its query's, the most similar 0.
        starts: (n,) first pair of each query.
    """

    queries: Positions
    pairs: Positions
    places: Positions
    starts: Positions


def layers_shown(settings: Sequence[SettingReport]) -> list[str]:
    """Return the layers that the page's pairs are shown in: those that hold more than rounding in every setting."""
    every = [setting.layer_dots.layers.cast(pl.String).to_list() for setting in settings if setting.layer_dots]
    return [layer for layer in every[0] if all(layer in others for others in every)] if every else []


def described(layers: Sequence[str]) -> Markup:
    """Return label, component and block of each layer, as JSON."""
    return script_json(
        [{"label": layer_label(name), "component": component_of(name), "block": block_of(name)} for name in layers]
    )


def browsed(setting: SettingReport, layers: Sequence[str], queries: Texts, originals: Texts) -> Browsed | None:
    """Return what the page carries of a setting's pairs; None if dots by layer are not at hand.

    Args:
        setting: whose queries.
        layers: in which similarities are shown.
        queries: texts of the queries.
        originals: texts of the candidates.
    """
    dots = setting.layer_dots
    if dots is None:
        return None
    decisions = _aligned(setting.tables["decisions"], dots.lists.query_ids)
    divergence = _divergence(setting, dots.lists.query_ids)
    similarity = dots.similarity()
    chosen = _chosen(dots, similarity, _in_order_of_interest(decisions, divergence), queries, originals)
    kept = decisions[chosen.queries]
    query_ids = kept["query_id"].to_list()
    candidates = dots.pairs["original_id"].cast(pl.String)[chosen.pairs]
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
    """Messages of samples as packed JSON: id -> list of role and content."""
    return packed(script_json(texts).encode())


def texts_by_id(samples: pl.DataFrame | None) -> Texts:
    """The messages of each sample as pairs of role and text; empty if there are none at hand."""
    if samples is None:
        return {}
    return {
        str(sample): [(message["role"], message["content"]) for message in messages]
        for sample, messages in samples.select("id", "messages").iter_rows()
    }


def _aligned(decisions: pl.DataFrame, query_ids: pl.Series) -> pl.DataFrame:
    """Decisions in the order of the dots."""
    order = pl.DataFrame({"query_id": query_ids.cast(pl.String)})
    return order.join(
        decisions.with_columns(pl.col("query_id").cast(pl.String)), on="query_id", how="left", maintain_order="left"
    )


def _divergence(setting: SettingReport, query_ids: pl.Series) -> pl.DataFrame | None:
    """`layer`, `cosine` and `rank` of each query."""
    table = setting.tables.get("divergence")
    if table is None or table.is_empty():
        return None
    return _aligned(table, query_ids).select(pl.col("layer").cast(pl.String), "cosine", "rank")


def _in_order_of_interest(decisions: pl.DataFrame, divergence: pl.DataFrame | None) -> Positions:
    """Positions of queries: wrong ones, the clearest first; close ones; divergent ones; the rest."""
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
    """Each query's best pairs and its source, of as many queries as fit."""
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
    """(n,) letters that each query brings to the page, in that order; an original counts where it comes first."""
    size = {name: sum(len(text) for _, text in messages) for name, messages in originals.items()}
    names = dots.pairs["original_id"].cast(pl.String)[pairs].to_list()
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
        "chosen": decisions["chosen_id"].cast(pl.String).to_list(),
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
    """Return similarities of some pairs in each of these layers."""
    shown = dots.positions_of(layers)
    similarities = cosine(
        dots.dots[np.ix_(pairs, shown)],
        dots.query_self_dots[np.ix_(dots.lists.query[pairs], shown)],
        dots.original_self_dots[np.ix_(dots.original[pairs], shown)],
    )
    # Rounding may leave a cosine beyond 1.
    steps: NDArray[np.int16] = np.rint(STEPS * similarities.clip(-1, 1)).astype("<i2")
    return steps.tobytes()


def _left_out(dots: LayerDots, chosen: _Chosen) -> str:
    """What the page does not carry, in a sentence."""
    parts = []
    if len(chosen.queries) < len(dots.lists.query_ids):
        parts.append(
            f"Of {len(dots.lists.query_ids):,} queries the page carries {len(chosen.queries):,}: those decided wrongly "
            "or by a tie first, then the closest and the most divergent ones."
        )
    if len(chosen.pairs) < int(dots.lists.lengths[chosen.queries].sum()):
        parts.append(f"Of each query it carries the {BEST_CANDIDATES} most similar candidates and the true source.")
    return " ".join(parts)

"""Small studies whose tables are made by the analyses, and what stands in a page."""

import base64
import gzip
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl

from gradsim import analysis
from gradsim.analysis import QUESTIONS, LayerDots
from gradsim.report import ReportData, SettingReport

NASTY = '<script>alert("x")</script><img src=http://example.org/x>&\'"'
PARTS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
LAYERS = ("model.embed_tokens.weight", *(f"model.layers.{block}.{part}.weight" for block in range(3) for part in PARTS))
LEAST = ("accuracy", "controls", "decisions")


def sizes(layers: Sequence[str] = LAYERS) -> pl.DataFrame:
    return analysis.parameters_per_layer(pl.DataFrame({"layer": layers, "parameters": [20] * len(layers)}))


def messages(ids: Sequence[str], text: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": ids,
            "messages": [
                [
                    {"role": "user", "content": f"{text} of {name}?"},
                    {"role": "assistant", "content": f"{text}\n  {NASTY}"},
                ]
                for name in ids
            ],
        }
    )


def ids_of(number: int) -> list[str]:
    return [f"s{position}" for position in range(number)]


def stored(
    lift: float,
    n_queries: int = 20,
    n_candidates: int = 3,
    layers: Sequence[str] = LAYERS,
    forced: int | None = 5,
    noise: Sequence[str] = (),
) -> dict[str, pl.DataFrame]:
    """Combined tables; sources, at rank 0, are more similar than others by about `lift`; the first few were forced.

    Layers of `noise` are marked as such.
    """
    random = np.random.default_rng(3)
    ids = ids_of(n_queries)
    pairs = pl.DataFrame(
        [(ids[at], ids[(at + rank) % n_queries], rank) for at in range(n_queries) for rank in range(n_candidates)],
        schema={"query_id": pl.String, "original_id": pl.String, "rank": pl.Int32},
        orient="row",
    )
    dots = pairs.join(pl.DataFrame({"layer": layers}), how="cross").with_columns(
        dot=(pl.Series(random.normal(0, 0.2, len(pairs) * len(layers))) + lift * (pl.col("rank") == 0)).clip(-1, 1)
    )
    self_dots = pl.DataFrame({"id": ids}).join(pl.DataFrame({"layer": layers}), how="cross")
    self_dots = self_dots.with_columns(self_dot=pl.lit(1.0), loss=pl.lit(2.0), noise=pl.col("layer").is_in(list(noise)))
    own = self_dots.rename({"id": "query_id"}), self_dots.rename({"id": "original_id"})
    similarity = analysis.gradient_similarity(dots, *own)
    projected = similarity.select(
        pl.lit("gaussian").alias("projection"),
        pl.lit(40, pl.Int64).alias("dimension"),
        *("query_id", "original_id", "rank"),
        similarity=pl.col("similarity") + pl.Series(random.normal(0, 0.1, len(pairs))),
    )
    is_source = pl.col("query_id") == pl.col("original_id")
    known = pl.lit(None, pl.Boolean) if forced is None else is_source & pl.col("query_id").is_in(ids[:forced])
    return {
        "dot_products": dots,
        "query_self": own[0],
        "original_self": own[1],
        "gradient_similarity": similarity,
        "projected_similarity": projected,
        "candidates": pairs.with_columns(score=pl.lit(None, pl.Float64), forced=known),
        "parameters_per_layer": sizes(layers),
        "projections": pl.DataFrame(
            {
                "projection": "gaussian",
                "dimension": 40,
                "kind": "gaussian",
                "scaling": "unbiased",
                "layer": layers,
                "parameters": [20] * len(layers),
                "layer_dimension": [3] * len(layers),
            }
        ),
    }


def make_setting(name: str, *, lift: float, questions: Sequence[str] = tuple(QUESTIONS), **changes) -> SettingReport:
    """A setting with the answers to some questions, all unless they are named."""
    tables = stored(lift, **changes)
    dots = LayerDots.from_tables(*(tables[table] for table in ("dot_products", "query_self", "original_self")))
    answers: dict[str, pl.DataFrame] = {}
    for question in questions:
        answers[question] = QUESTIONS[question].answer({**tables, **answers}, 42)
    ids = ids_of(len(dots.lists.query_ids))
    lengths = pl.DataFrame({"id": ids, "length": [len(name) * at % 7 for at, name in enumerate(ids)]})
    answers["baseline_differences"] = analysis.baseline_differences(
        tables["gradient_similarity"], tables["candidates"], lengths, lengths, seed=42
    )
    return SettingReport(name, answers, messages(ids_of(len(dots.lists.query_ids)), "rewritten"), dots)


def make_audit(dots: pl.DataFrame, error: float = 2.1e-7) -> pl.DataFrame:
    """An audit of these dots whose first one is off."""
    reference = dots.with_columns(query_self=pl.lit(1.0), original_self=pl.lit(1.0))
    first = pl.int_range(pl.len()) == 0
    off = dots.with_columns(pl.col("dot") + pl.when(first).then(error).otherwise(0.0))
    query_self, original_self = (
        dots.select(side, "layer", self_dot=pl.lit(1.0), loss=pl.lit(2.0)).unique(maintain_order=True)
        for side in ("query_id", "original_id")
    )
    return analysis.gradient_audit(reference, off, query_self, original_self)


def audited(setting: SettingReport, error: float = 2.1e-7) -> SettingReport:
    """The setting with an audit of three pairs of a study like it."""
    audit = make_audit(stored(0.1)["dot_products"].head(3 * len(LAYERS)), error)
    return SettingReport(
        setting.setting, {**setting.tables, "gradient_audit": audit}, setting.queries, setting.layer_dots
    )


def make_report(*settings: SettingReport, **changes: object) -> ReportData:
    whole: dict[str, Any] = {
        "study": f"tiny {NASTY}",
        "settings": settings,
        "provenance": {"Fingerprint": "abc123", f"Model {NASTY}": NASTY},
        "description": f"What it is for {NASTY}",
        "parameters_per_layer": sizes(),
        "originals": messages(ids_of(20), "original"),
        "exclusions": pl.DataFrame({"id": [f"s99{NASTY}"], "reason": [NASTY]}),
        "truncations": pl.DataFrame({"id": ["s98"], "kept": ["first 8 of 11 tokens"]}),
    }
    return ReportData(**(whole | changes))


INLINE = {"a", "b", "button", "code", "em", "span", "strong"}


class Page(HTMLParser):
    """What stands in a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[dict[str, str]] = []
        self.buttons: set[str] = set()
        self._words: list[str] = []
        self._hidden = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes.items() if name in {"href", "src", "xlink:href"}]
        self.ids += [attributes[name] for name in ("id",) if name in attributes]
        self.buttons |= {attributes[name] for name in ("data-csv",) if name in attributes}
        if tag == "script":
            self.scripts.append(attributes)
        self._hidden += tag in {"script", "style"}
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in {"script", "style"}
        self._part(tag)

    def _part(self, tag: str) -> None:
        if tag not in INLINE:
            self._words.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._words.append(data)

    @property
    def text(self) -> str:
        """What readers see."""
        return " ".join("".join(self._words).split())

    def block(self, name: str, value: str) -> str:
        """A block of data, as it stands in the page."""
        found = re.search(rf'<script type="[^"]+" data-{name}="{value}">(.*?)</script>', self.html, re.DOTALL)
        assert found, (name, value)
        return found[1]

    def unpacked(self, name: str, value: str) -> bytes:
        return gzip.decompress(base64.b64decode(self.block(name, value)))

    def table(self, file: str) -> pl.DataFrame:
        """A table that the page gives for download."""
        return pl.read_csv(io.BytesIO(self.unpacked("download", file)))

    def pairs(self, setting: str) -> dict[str, Any]:
        return json.loads(self.block("pairs", setting))

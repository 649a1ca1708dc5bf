"""Asset checks that count faulty query texts. They only warn; the study decides how to treat each fault."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import dagster as dg
import polars as pl

from gradsim.queries.quality import FAULTS
from gradsim.study.settings import QueryMethod
from gradsim.tables import Lineage, Store, TableKey
from gradsim_assets.checks.partition_checks import Verdict, partition_check_step

_CHECK_NAMES: Mapping[str, str] = {
    "empty": "texts_not_empty",
    "truncated": "texts_not_truncated",
    "refused": "texts_not_refused",
    "executed": "prompts_not_executed",
    "unchanged": "texts_changed",
    "language": "language_kept",
    "length": "length_kept",
}

# Characters with a meaning in Markdown.
_MARKUP = re.compile(r"[\\`*_\[\]<>!|#~]")

# Maximum number of texts shown, and of characters of each.
_SHOWN, _SHOWN_CHARACTERS = 20, 200


class FaultyText(NamedTuple):
    """A message with a fault, before and after rewriting."""

    query: str
    role: str
    fault: str
    before: str
    after: str


def quality_checks(lineage: Lineage) -> list[dg.AssetChecksDefinition]:
    """Return the checks of each setting's queries: one check per fault, one step per setting."""
    return [_checks(lineage, name, method) for name, method in lineage.study.ordered_settings()]


def check_name(fault: str) -> str:
    """Return the name of the asset check that counts texts with a fault."""
    return _CHECK_NAMES.get(fault, f"texts_not_{fault}")


def _checks(lineage: Lineage, setting: str, method: QueryMethod) -> dg.AssetChecksDefinition:
    key = lineage.key("queries", setting)
    descriptions = {check_name(fault): _description(fault, method) for fault in faults_of(method)}
    return partition_check_step(lineage, key, "quality", descriptions, partial(_verdicts, key, method), blocking=False)


def _description(fault: str, method: QueryMethod) -> str:
    choice = method.quality.choices[fault]
    return f"Counts query texts with the fault '{fault}' ({FAULTS[fault]}). Setting in the study file: {choice}."


def faults_of(method: QueryMethod) -> list[str]:
    """Return the faults that a method's texts can have, in the order of `FAULTS`."""
    return [fault for fault in FAULTS if any(fault in faults for faults in method.faults.values())]


def _verdicts(key: TableKey, method: QueryMethod, store: Store, partition: str) -> dict[str, Verdict]:
    """Return the verdict of each check on a partition."""
    queries = store.read(key, [partition])
    reasons = list(store.provenance(key, partition).excluded.values())
    texts = list(_faulty_texts(store, method, queries, partition))
    faulty = {fault: [text for text in texts if text.fault == fault] for fault in faults_of(method)}
    return {
        check_name(fault): _verdict(texts, queries.height, sum(FAULTS[fault] in reason for reason in reasons))
        for fault, texts in faulty.items()
    }


def _faulty_texts(store: Store, method: QueryMethod, queries: pl.DataFrame, partition: str) -> Iterator[FaultyText]:
    """Yield the faulty texts, one per fault, with the texts that they were made from."""
    wanted = queries.filter(pl.col("faults").list.eval(pl.element().list.len() > 0).list.any())
    if wanted.is_empty():
        return
    source = store.lineage.key("queries", method.source) if method.source else store.lineage.key("samples")
    sources = dict(store.read(source, [partition if method.source else None]).select("id", "messages").iter_rows())
    for query, messages, faults in wanted.select("id", "messages", "faults").iter_rows():
        before = {message["role"]: message["content"] for message in sources[query]}
        for message, found in zip(messages, faults, strict=True):
            for fault in found:
                yield FaultyText(query, message["role"], fault, before.get(message["role"], ""), message["content"])


def _verdict(faulty: Sequence[FaultyText], queries: int, excluded: int) -> Verdict:
    """Return the verdict on one fault: how many queries have it, and which texts."""
    count = len({text.query for text in faulty})
    counted = {"queries": queries, "faulty queries kept": count, "samples excluded": excluded}
    if not count and not excluded:
        return Verdict(metadata=counted)
    kept = f"{count} of {queries} queries" if count else ""
    left_out = f"{excluded} {'sample' if excluded == 1 else 'samples'} excluded" if excluded else ""
    shown = {"texts": dg.MarkdownMetadataValue(_as_markdown(faulty))} if count else {}
    return Verdict(", ".join(part for part in (kept, left_out) if part), {**counted, **shown})


def _as_markdown(faulty: Sequence[FaultyText]) -> str:
    """Return a Markdown table of the first few texts, one per row."""
    lines = ["| id | role | before | after |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {text.query} | {text.role} | {_in_a_line(text.before)} | {_in_a_line(text.after)} |"
        for text in faulty[:_SHOWN]
    ]
    return "\n".join(lines) + (f"\n\nand {len(faulty) - _SHOWN} more" if len(faulty) > _SHOWN else "")


def _in_a_line(text: str) -> str:
    """Return a text on one line, truncated, with Markdown characters escaped."""
    line = " ".join(text.split())
    shown = line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]} …"
    return _MARKUP.sub(r"\\\g<0>", shown)

"""Queries that need no model: read from a file, or with words dropped."""

import re

import polars as pl

from gradsim.dataset import samples as loading
from gradsim.dataset.turns import kind_of, last_turn
from gradsim.errors import SampleError
from gradsim.queries.method import MadeQueries, QueryContext, query_frame, rewrite
from gradsim.study.settings import QueryFile, WordDropout

_BLANKS = re.compile(r"[^\S\r\n]*")
_BLANKS_AND_WORD = re.compile(r"[^\S\r\n]*(?P<word>\S+)")


@rewrite.register
def _read_file(settings: QueryFile, samples: pl.DataFrame, context: QueryContext) -> MadeQueries:
    """Read the queries; raise SampleError if one has no original, an original has none, or a sample is unusable."""
    path = settings.path
    queries = loading.validate(loading.load_file(path, context.loss_on), None, str(path))
    originals, found = dict.fromkeys(context.ids), dict.fromkeys(queries["id"])
    if not context.trial and (unknown := next((each for each in found if each not in originals), None)):
        raise SampleError(
            f"{path}: query {unknown!r} has no original; remove it or give it the id of the original it was made from"
        )
    if missing := next((each for each in originals if each not in found), None):
        raise SampleError(f"{path}: original {missing!r} has no query; add one of that id")
    held, wanted_kind = (kind_of(each["messages"][0]) for each in (queries, samples))
    if held != wanted_kind:
        raise SampleError(f"{path}: holds {held}, but the originals are {wanted_kind}; give queries of the same kind")
    wanted = samples.select("id").join(queries, on="id", how="left", maintain_order="left")
    return MadeQueries(query_frame(wanted, wanted["messages"].to_list()))


@rewrite.register
def _drop_words(settings: WordDropout, samples: pl.DataFrame, context: QueryContext) -> MadeQueries:
    dialogues = samples["messages"].to_list()
    for messages in dialogues:
        for place in last_turn(messages).values():
            messages[place]["content"] = drop_words(messages[place]["content"], settings.every)
    return MadeQueries(query_frame(samples, dialogues))


def drop_words(text: str, every: int) -> str:
    """Drop every n-th word, a run of non-blank characters; keep line breaks and indentation.

    A dropped word takes the blanks before it along, or those after it if it begins its line.
    """
    kept: list[str] = []
    done = 0
    for match in list(_BLANKS_AND_WORD.finditer(text))[every - 1 :: every]:
        start, end = match.span()
        if text[start - 1 : start] in ("", "\r", "\n"):  # begins its line
            start, end = match.start("word"), _end_of_blanks(text, end)
        kept.append(text[done:start])
        done = end
    return "".join(kept) + text[done:]


def _end_of_blanks(text: str, start: int) -> int:
    match = _BLANKS.match(text, start)
    return match.end() if match else start

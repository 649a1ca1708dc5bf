"""Study files that are malformed, or that would take long to read: one line each, at once."""

from pathlib import Path

import pytest

from gradsim.errors import StudyError
from gradsim.study import load_study

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
CORRECT = "; correct its syntax"

REFUSED = {
    "anchors that stand for 9^8 values": (BOMB, ", line 1: 'a' is an anchor or alias; write its value out"),
    "list in itself": ("x: 1\na: &self [*self]", ", line 2: 'self' is an anchor or alias; write its value out"),
    "mapping in itself": ("&self a: *self", ", line 1: 'self' is an anchor or alias; write its value out"),
    "alias of nothing": ("a: *b", ", line 1: 'b' is an anchor or alias; write its value out"),
    "deep lists": (f"a: {'[' * 600}{']' * 600}", ", line 1: nested more than 20 levels deep; remove levels"),
    "lists without ends": ("[" * 99_000, ", line 1: nested more than 20 levels deep; remove levels"),
    "deep mappings": ("{a: " * 20_000, ", line 1: nested more than 20 levels deep; remove levels"),
    "deep blocks": ("- " * 40_000, ", line 1: nested more than 20 levels deep; remove levels"),
    "large": ("#" * 100_001, ": is larger than 100,000 bytes; keep data in other files"),
    "empty integer": ('a: 1\nb: !!int ""', ", line 2: '' is not of type int; correct it"),
    "empty float": ('b: !!float ""', ", line 1: '' is not of type float; correct it"),
    "text as a truth value": ("b: !!bool x", ", line 1: 'x' is not of type bool; correct it"),
    "text as a time": ("b: !!timestamp x", ", line 1: 'x' is not of type timestamp; correct it"),
    "date that is none": ("b: 2026-02-30", ", line 1: '2026-02-30' is not of type timestamp; correct it"),
    "integer of many digits": (
        f"samples: {'9' * 5000}",
        ", line 1: '999999999999...9999999999999' is not of type int; correct it",
    ),
    "integer of many hexadecimal digits": (
        f"samples: 0x{'f' * 5000}",
        ", line 1: '0xffffffffff...fffffffffffff' is out of range; use a smaller number",
    ),
    "code": (
        "a: !!python/object/apply:os.getcwd []",
        ", line 1: not YAML (could not determine a constructor for the tag "
        f"'tag:yaml.org,2002:python/object/apply:os.getcwd'){CORRECT}",
    ),
    "list as a key": ("? [a]\n: b", f", line 1: not YAML (found unhashable key){CORRECT}"),
    "two documents": ("a: 1\n---\nb: 2", f", line 2: not YAML (but found another document){CORRECT}"),
    "line break in a key": (r'"a\nb": 1', r": unknown key 'a\nb'; known keys: bm25_part, chat, dataset, "),
    "long key": (f"{'k' * 900}: 1", f": unknown key '{'k' * 100}...'; known keys: bm25_part, chat, dataset, "),
}


@pytest.mark.parametrize(("text", "complaint"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.timeout(10)
def test_a_refused_file(root: Path, text: str, complaint: str) -> None:
    path = root / "studies/mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        load_study("mine")
    assert str(caught.value).startswith(f"{path}{complaint}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_without_an_end(root: Path) -> None:
    (root / "studies/mine.yaml").symlink_to("/dev/zero")
    with pytest.raises(StudyError, match="is larger than 100,000 bytes"):
        load_study("mine")

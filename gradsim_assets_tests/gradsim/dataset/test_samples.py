import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA, load_file, validate
from gradsim.errors import GradsimError, SampleError, TableError


def turn(prompt: str | None, answer: str | None) -> list[dict[str, str | None]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def frame(*rows: tuple[str | None, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SAMPLES_SCHEMA, orient="row")


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def message_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(GradsimError) as caught:
        call(*arguments)
    return str(caught.value)


class TestLoadFile:
    def test_jsonl_ignores_other_fields_and_blank_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        rows = [
            {"id": "a", "source": "mine", "messages": [{"role": "user", "content": "p\u2028q", "name": "x"}]},
            {"id": 7, "messages": turn("é", "z")},
        ]
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        assert load_file(path).rows() == [
            ("a", [{"role": "user", "content": "p\u2028q"}]),
            ("7", turn("é", "z")),
        ]

    def test_parquet_with_categories_and_fields_in_another_order(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pl.DataFrame(
            {
                "extra": [1, 2],
                "messages": [[{"content": "p", "weight": 1, "role": "user"}], None],
                "id": ["b", "a"],
            },
            schema_overrides={"id": pl.Enum(["a", "b"])},
        ).write_parquet(path)
        loaded = load_file(path)
        assert loaded.schema == SAMPLES_SCHEMA
        assert loaded.rows() == [("b", [{"role": "user", "content": "p"}]), ("a", None)]

    def test_missing_role_is_read_and_then_refused(self, tmp_path: Path) -> None:
        jsonl = write_jsonl(tmp_path / "a.jsonl", {"id": "a", "messages": [{"content": "p"}]})
        parquet = tmp_path / "a.parquet"
        pl.DataFrame({"id": ["a"], "messages": [[{"content": "p"}]]}).write_parquet(parquet)
        for path in (jsonl, parquet):
            assert message_of(validate, load_file(path), None, "file") == (
                "file: sample 'a' has no role in message 1; fix or remove it"
            )

    @pytest.mark.parametrize(
        ("line", "fault"),
        [
            ("{", "is not JSON text (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
            ('{"id": "\\ud800"}', "is not JSON text (.*surrogates not allowed)"),
            ("[1]", "is not an object"),
            ('{"id": 1.5}', "has an id that is not text"),
            ('{"id": true}', "has an id that is not text"),
            ('{"id": "a", "messages": "hi"}', "has messages that are not a list of (role, content) objects"),
            ('{"id": "a", "messages": ["hi"]}', "has messages that are not a list of (role, content) objects"),
            (
                '{"id": "a", "messages": [{"role": "user", "content": 3}]}',
                "has a content in message 1 that is not text",
            ),
        ],
    )
    def test_unusable_line_is_named(self, tmp_path: Path, line: str, fault: str) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"id": "a", "messages": turn("p", "q")}) + "\n" + line)
        found = message_of(load_file, path)
        expected = re.escape(f"{path}: line 2 {fault}; fix or remove it").replace(r"\.\*", ".*")
        assert re.fullmatch(expected, found), found

    def test_line_of_broken_bytes_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"id": "\xff"}')
        assert message_of(load_file, path).startswith(f"{path}: line 1 is not UTF-8 text (")

    def test_corrupt_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        frame(("a", turn("p", "q"))).write_parquet(path)
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(TableError) as caught:
            load_file(path)
        assert str(caught.value).startswith(f"{path}: not a readable Parquet file (Parquet magic bytes not found")

    def test_no_file_and_wrong_suffix(self, tmp_path: Path) -> None:
        absent = tmp_path / "a.jsonl"
        assert message_of(load_file, absent) == f"{absent}: no such file; fix the path in the study file"
        for name in ("a.xml", "a", "a.gz", "a.jsonl.bz2"):
            assert message_of(load_file, tmp_path / name) == (
                f"{tmp_path / name}: samples are read from .parquet, .jsonl, .json or .csv files; convert it"
            )


class TestValidate:
    def test_good_samples_pass_unchanged(self) -> None:
        samples = frame(("a", turn("p", "q")), ("b", turn(" r", "s\n")))
        assert validate(samples, 2, "mine").equals(samples)

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            (frame(), "mine: holds no samples; give at least one"),
            (
                frame(("a", turn("p", "q")), ("b", turn("p", "q")), ("a", turn("p", "q"))),
                "mine: rows 1 and 3 have the same id 'a'; give every sample its own",
            ),
            (frame(("a", turn("p", "q")), (None, turn("p", "q"))), "mine: row 2 has no id; give every sample its own"),
            (frame(("a", None)), "mine: sample 'a' has no messages; fix or remove it"),
            (frame(("a", [])), "mine: sample 'a' has no messages; fix or remove it"),
            (
                frame(("a", turn("p", "q")), ("b", [{"role": None, "content": "p"}])),
                "mine: sample 'b' has no role in message 1; fix or remove it",
            ),
            (frame(("a", turn("p", None))), "mine: sample 'a' has no content in message 2; fix or remove it"),
            (
                frame(("a", [*turn("p", "q"), {"role": "bot", "content": "r"}])),
                "mine: sample 'a' has the unknown role 'bot' in message 3; fix or remove it",
            ),
            (
                frame(("a", [*turn("p", "q"), *turn("r", "s")[:1]])),
                "mine: sample 'a' does not end with a user message and its answer, but has user, assistant, user; "
                "fix or remove it",
            ),
            (
                frame(("a", turn("p", "q")[::-1])),
                "mine: sample 'a' does not end with a user message and its answer, but has assistant, user; "
                "fix or remove it",
            ),
            (frame(("a", turn("p", ""))), "mine: sample 'a' has an empty answer; fix or remove it"),
            (frame(("a", turn("p", " \n"))), "mine: sample 'a' has an empty answer; fix or remove it"),
            (frame(("a", turn("\t", "q"))), "mine: sample 'a' has an empty prompt; fix or remove it"),
            (
                frame(("a", turn("p", "q"))),
                "mine: holds 1 samples but the study states 3; set `samples: 1` in the study file",
            ),
        ],
    )
    def test_refusal_names_source_and_first_offender(self, samples: pl.DataFrame, message: str) -> None:
        with pytest.raises(SampleError) as caught:
            validate(samples, 3 if samples.height == 1 else None, "mine")
        assert str(caught.value) == message

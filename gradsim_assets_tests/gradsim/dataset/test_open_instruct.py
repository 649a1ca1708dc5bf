"""Our tokenization against the real open-instruct, where its submodule is checked out."""

from pathlib import Path

import polars as pl
import pytest

from gradsim.chat import tokenize
from gradsim.dataset import open_instruct
from gradsim.models import load_tokenizer


@pytest.fixture
def processor() -> Path:
    path = open_instruct.processor_path()
    if not path.is_file():
        pytest.skip("the open-instruct submodule is not checked out")
    return path


def test_equals_open_instruct_on_lima(processor: Path, golden: Path) -> None:
    tokenizer = load_tokenizer(str(golden / "tokenizer"))
    messages = pl.read_parquet(golden / "lima/original.parquet")["messages"].head(100).to_list()

    theirs = open_instruct.tokenize(messages, tokenizer, processor)

    for sample, their in zip(messages, theirs, strict=True):
        ours = tokenize(sample, tokenizer)
        assert {column: getattr(ours, column) for column in open_instruct.COLUMNS} == their


def test_the_submodule_is_registered_at_the_commit_of_the_study(project: Path) -> None:
    assert "https://github.com/allenai/open-instruct" in (project / ".gitmodules").read_text()
    assert open_instruct.processor_path().is_relative_to(project / "open-instruct")

"""A short run of each fuzzer; `make fuzz` runs them for longer."""

import random
from pathlib import Path

import pytest

from gradsim_assets_tests.fuzzing import FUZZERS, Watch, fault_of

INPUTS = {"study files": 40, ".env files": 60, "published results": 40, "stored tables": 60, "model folders": 12}


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    return Watch(tmp_path_factory.getbasetemp())


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUZZERS)
def test_damaged_inputs_are_read_or_refused_in_one_line(kind: str, tmp_path: Path, watch: Watch) -> None:
    fuzz = FUZZERS[kind](tmp_path)
    for number in range(INPUTS.get(kind, 200)):
        assert fault_of(fuzz, random.Random(f"0 {kind} {number}"), watch) is None, f"--kind '{kind}' --number {number}"

"""Measured rates on disk: found again where device and precision are the same."""

import json
from pathlib import Path

import pytest
import torch

from gradsim.rates import MeasuredRates, device_name, read_rates, write_rates
from gradsim.study import Study
from gradsim.tables import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    definition = {
        "name": "mine",
        "dataset": {"path": tmp_path / "originals.jsonl"},
        "samples": 4,
        "model": {"name": "org/model"},
        "settings": {"dropped": {"method": "word_dropout"}},
    }
    return Store(tmp_path / "data root", Study.model_validate(definition))


def measured(speed: float, precision: str = "float32", device: str | None = None) -> MeasuredRates:
    return MeasuredRates(
        device=device or device_name("cpu"), precision=precision, operations_per_second=speed, bytes_per_second=5.0
    )


def test_none_before_any_were_measured(store: Store) -> None:
    assert read_rates(store, "cpu", "float32") is None
    assert not store.root.exists()


def test_each_device_and_precision_has_its_own_and_the_newest_counts(store: Store) -> None:
    for each in (measured(1.0), measured(2.0, "float64"), measured(3.0, device="another"), measured(4.0)):
        path = write_rates(store, each)
    assert path == store.root / "mine" / "rates.json"
    assert len(json.loads(path.read_text())) == 3
    found = read_rates(store, "cpu", "float32")
    assert found is not None
    assert (found.rates.operations_per_second, found.rates.bytes_per_second) == (4.0, 5.0)
    other = read_rates(store, "cpu", "float64")
    assert other is not None
    assert other.operations_per_second == 2.0
    assert read_rates(store, "cpu", "bfloat16") is None


def test_they_say_when_and_with_what_they_were_measured(store: Store) -> None:
    (entry,) = json.loads(write_rates(store, measured(1.0)).read_text())
    assert entry["versions"]["torch"] == torch.__version__
    assert set(entry["versions"]) == {"gradsim", "torch", "transformers"}
    assert entry["measured"].endswith("+00:00")


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"device": "cpu"}]'])
def test_a_damaged_file_is_as_none_and_is_replaced(store: Store, content: str) -> None:
    path = write_rates(store, measured(1.0))
    path.write_text(content)
    assert read_rates(store, "cpu", "float32") is None
    write_rates(store, measured(2.0))
    found = read_rates(store, "cpu", "float32")
    assert found is not None
    assert found.operations_per_second == 2.0


def test_a_processor_with_other_threads_is_another_device() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = device_name("cpu")
        torch.set_num_threads(2)
        assert one.endswith(", 1 thread")
        assert device_name("cpu") == one.replace(", 1 thread", ", 2 threads")
    finally:
        torch.set_num_threads(threads)

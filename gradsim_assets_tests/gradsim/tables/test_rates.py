"""Measured rates on disk: found again where device and precision are the same."""

import json
from pathlib import Path

import pytest
import torch

from gradsim.models import device_name
from gradsim.tables import Store
from gradsim.tables.rates import MeasuredRates, read_rates, read_site_rates, write_rates
from gradsim_assets_tests.studies import two_partitions


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data root", two_partitions(tmp_path))


def measured(
    speed: float,
    precision: str = "float32",
    device: str | None = None,
    site: str | None = None,
    memory_budget: int | None = None,
) -> MeasuredRates:
    return MeasuredRates(
        site=site,
        device=device or device_name("cpu"),
        precision=precision,
        operations_per_second=speed,
        bytes_per_second=5.0,
        memory_budget=memory_budget,
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


def test_a_clusters_are_found_by_its_queue_and_the_precision_and_the_newest_count(store: Store) -> None:
    """Whatever its nodes are; what was measured last is what a job may meet."""
    here, there = device_name("cpu"), "me@login gpu, 1 GPUs"
    for each in (
        measured(1.0),
        measured(2.0, device="A100", site=there, memory_budget=60 << 30),
        measured(3.0, "float64", "A100", there),
        measured(4.0, device="H100", site="me@login gpu, 2 GPUs"),
        measured(5.0, device=here, site=there),
    ):
        write_rates(store, each)
    found = read_site_rates(store, there, "float32")
    assert found is not None
    assert (found.operations_per_second, found.memory_budget) == (5.0, None)
    write_rates(store, measured(6.0, device="A100", site=there, memory_budget=50 << 30))
    found = read_site_rates(store, there, "float32")
    assert found is not None
    assert (found.operations_per_second, found.memory_budget) == (6.0, 50 << 30)
    other = read_site_rates(store, there, "float64")
    assert other is not None
    assert other.operations_per_second == 3.0
    assert read_site_rates(store, there, "bfloat16") is None
    assert read_site_rates(store, "me@login", "float32") is None


def test_a_clusters_and_this_machines_are_apart_even_of_the_same_device(store: Store) -> None:
    write_rates(store, measured(1.0, site="a cluster"))
    assert read_rates(store, "cpu", "float32") is None
    write_rates(store, measured(2.0))
    path = write_rates(store, measured(1.0, site="a cluster"))
    assert len(json.loads(path.read_text())) == 2
    here, there = read_rates(store, "cpu", "float32"), read_site_rates(store, "a cluster", "float32")
    assert here is not None
    assert there is not None
    assert (here.operations_per_second, there.operations_per_second) == (2.0, 1.0)


def test_rates_that_were_kept_before_there_were_clusters_are_of_here(store: Store) -> None:
    path = write_rates(store, measured(1.0))
    (entry,) = json.loads(path.read_text())
    path.write_text(
        json.dumps([{name: value for name, value in entry.items() if name not in {"site", "memory_budget"}}])
    )
    found = read_rates(store, "cpu", "float32")
    assert found is not None
    assert (found.site, found.memory_budget, found.operations_per_second) == (None, None, 1.0)


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

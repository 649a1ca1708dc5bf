"""Fixtures that every test may use."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

pytest_plugins = ["gradsim_assets_tests.browser", "gradsim_assets_tests.labs", "gradsim_assets_tests.unsynced"]

# Machines are shared and noisy: no test asserts a time, these neither. Every run draws other examples; pytest's option
# --hypothesis-profile=thorough draws many at once.
settings.register_profile("gradsim", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
settings.register_profile("thorough", settings.get_profile("gradsim"), max_examples=1000)
settings.load_profile("gradsim")

# A shell has commands that it runs in the background ignore interrupts, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asks the Hub. huggingface_hub reads this once, when the first test imports it.
os.environ["HF_HUB_OFFLINE"] = "1"

PROJECT = Path(__file__).resolve().parents[1]

# Fixture -> marker of the tests that use it, directly or not.
MARKERS = {
    "lab": "slurm",
    "lab_without_accounting": "slurm",
    "workplace": "platform",
    "finished": "platform",
    "in_float64": "platform",
    "chromium": "browser",
    "golden": "golden",
    "make_model": "model",
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by its fixtures, and name the group that shares a process.

    The tests of a file do, and those on the Slurm lab: each of them needs it idle.
    """
    found = {MARKERS[name] for name in getattr(item, "fixturenames", ()) if name in MARKERS}
    for marker in found:
        item.add_marker(marker)
    item.add_marker(pytest.mark.xdist_group("slurm" if "slurm" in found else item.nodeid.split("::")[0]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow tests first, sorted so that processes do not wait for each other, and let fast ones fill the gaps.

    Tests on the Slurm lab take longest, so they start first. One file that needs the study `finished` follows: while
    its process runs the study, the others do what needs no such study.
    """
    slow = {item for item in items if item.get_closest_marker("slow")}
    readers = list(dict.fromkeys(item.path for item in items if item in slow and _needs_finished(item)))

    def order(item: pytest.Item) -> int:
        if item not in slow:
            return 4
        if item.get_closest_marker("slurm"):
            return 0
        if item.path not in readers:
            return 2
        return 1 if item.path == readers[0] else 3

    items.sort(key=order)


def _needs_finished(item: pytest.Item) -> bool:
    return "finished" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def built_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Builds a folder that all processes of the test run share; the first one that needs it builds it."""
    own = tmp_path_factory.getbasetemp()
    root = own if worker_id == "master" else own.parent

    def build(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return build


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Waits for something that another process does."""

    def wait(condition: Callable[[], bool], what: str, seconds: float = 120, pause: float = 0.01) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
            time.sleep(pause)

    return wait


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout."""
    return PROJECT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of published and reference data, which is not part of the project."""
    folder = Path(os.environ.get("GRADSIM_GOLDEN", PROJECT / "../shared/golden")).resolve()
    if not (folder / "README.md").is_file():
        pytest.skip(f"golden data: {folder} is absent (set GRADSIM_GOLDEN)")
    return folder


@pytest.fixture(scope="session")
def golden_layout(golden: Path, built_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The published results in their original files, which take long to write; to be read only."""
    from gradsim_assets_tests.gradsim.published.layout import write_golden_layout

    return built_once("golden layout", lambda folder: write_golden_layout(golden, folder))

import pytest

from gradsim import progress as module
from gradsim.progress import in_steps


def test_few_reports_the_first_and_the_last_among_them() -> None:
    seen: list[tuple[int, int]] = []
    progress = in_steps(lambda done, total: seen.append((done, total)), steps=10)
    for done in range(1, 1001):
        progress(done, 1000)
    assert seen[0] == (1, 1000)
    assert seen[-1] == (1000, 1000)
    assert len(seen) == 11


def test_long_work_reports_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_REPORTS", 0.0)
    seen: list[int] = []
    progress = in_steps(lambda done, total: seen.append(done), steps=2)
    for done in range(5):
        progress(done, 1000)
    assert seen == [0, 1, 2, 3, 4]


def test_nothing_to_do_is_no_error() -> None:
    in_steps(lambda done, total: None)(0, 0)

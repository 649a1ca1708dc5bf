import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import StudyError
from gradsim.study.partitions import Partition, partition_ranges, select_partitions


def keys(partitions: tuple[Partition, ...]) -> list[str]:
    return [partition.key for partition in partitions]


def test_keys_name_first_and_last_position() -> None:
    assert keys(partition_ranges(988, 100))[0] == "0000-0099"
    assert keys(partition_ranges(988, 100))[-1] == "0900-0987"
    assert keys(partition_ranges(1, 100)) == ["0000-0000"]
    assert keys(partition_ranges(10_000, 5_000)) == ["0000-4999", "5000-9999"]


def test_five_digits_beyond_ten_thousand_samples() -> None:
    assert keys(partition_ranges(10_001, 5_000)) == ["00000-04999", "05000-09999", "10000-10000"]


@given(st.integers(1, 30_000), st.integers(1, 30_000).filter(lambda size: size > 10))
def test_partitions_cover_all_positions_once(samples: int, size: int) -> None:
    partitions = partition_ranges(samples, size)
    assert [position for p in partitions for position in range(p.start, p.end)] == list(range(samples))
    assert all(0 < p.end - p.start <= size for p in partitions)
    assert sorted(keys(partitions)) == keys(partitions)
    assert len({len(key) for key in keys(partitions)}) == 1


class TestSelect:
    ALL = partition_ranges(988, 100)

    def test_all_where_nothing_is_asked(self) -> None:
        assert select_partitions(self.ALL) == self.ALL

    def test_by_keys_in_order_and_once(self) -> None:
        asked = ["0900-0987", "0100-0199", "0900-0987"]
        assert keys(select_partitions(self.ALL, asked)) == ["0100-0199", "0900-0987"]

    @pytest.mark.parametrize(
        ("start", "end", "selected"),
        [
            (0, 100, ["0000-0099"]),
            (100, 300, ["0100-0199", "0200-0299"]),
            (800, None, ["0800-0899", "0900-0987"]),
            (None, 100, ["0000-0099"]),
            (900, 988, ["0900-0987"]),
        ],
    )
    def test_by_positions_end_exclusive(self, start: int | None, end: int | None, selected: list[str]) -> None:
        assert keys(select_partitions(self.ALL, start=start, end=end)) == selected

    def test_an_unknown_key(self) -> None:
        with pytest.raises(StudyError) as caught:
            select_partitions(self.ALL, ["0000-0049"])
        message = "no partition '0000-0049': there are 10, 0000-0099 to 0900-0987; choose one of those"
        assert str(caught.value) == message

    @pytest.mark.parametrize(("start", "end"), [(50, 100), (0, 99), (0, 1000), (988, 988), (200, 100), (100, 100)])
    def test_positions_between_borders(self, start: int, end: int) -> None:
        with pytest.raises(StudyError) as caught:
            select_partitions(self.ALL, start=start, end=end)
        assert str(caught.value) == (
            f"no partitions from {start} to {end} (end exclusive): "
            "choose among the borders 0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 988"
        )

    def test_keys_and_positions_exclude_each_other(self) -> None:
        with pytest.raises(StudyError) as caught:
            select_partitions(self.ALL, ["0000-0099"], start=0)
        assert (
            str(caught.value)
            == "--partition cannot be combined with --partition-start/--partition-end; use one of them"
        )

import pytest
from matplotlib.figure import Figure

from gradsim.plots.marks import logarithmic, marked_steps, within_hundred


@pytest.mark.parametrize(
    ("ends", "written"),
    [
        ((0.3, 100), ["0.5", "1", "2", "5", "10", "20", "50", "100"]),
        ((1.1, 3.2), ["1.5", "2", "3"]),
        ((8, 8.52), ["8", "8.1", "8.2", "8.3", "8.4", "8.5"]),
        ((8.001, 8.002), []),
        ((1e-9, 1), ["10⁻⁹", "10⁻⁸", "10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]),
        ((1e-14, 1), ["10⁻¹⁴", "10⁻¹²", "10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"]),
    ],
)
def test_ticks_of_logarithmic_axes(ends: tuple[float, float], written: list[str]) -> None:
    axes = Figure().subplots()
    axes.set_xlim(*ends)
    logarithmic(axes)
    ticks = axes.xaxis.get_majorticklocs()
    assert [axes.xaxis.get_major_formatter()(tick) for tick in ticks] == written


@pytest.mark.parametrize(
    ("ends", "written"),
    [
        ((0.9, 3.2), ["1", "2", "3"]),
        ((1, 12.5), ["1", "2", "3", "5", "7", "10"]),
        ((1, 113), ["1", "2", "5", "10", "20", "50", "100"]),
        ((0.95, 1.05), ["1"]),
    ],
)
def test_ticks_of_numbers_of_layers_are_whole(ends: tuple[float, float], written: list[str]) -> None:
    axes = Figure().subplots()
    axes.set_xlim(*ends)
    logarithmic(axes, whole=True)
    ticks = axes.xaxis.get_majorticklocs()
    assert [axes.xaxis.get_major_formatter()(tick) for tick in ticks] == written


@pytest.mark.parametrize(
    ("values", "ends"),
    [((20, 80), (17, 83)), ((0, 100), (0, 100)), ((100, 100), (None, 100)), ((50, 99), (None, 100))],
)
def test_axes_of_shares_end_at_a_hundred(values: tuple[float, float], ends: tuple[float | None, float]) -> None:
    across, up = Figure().subplots(1, 2)
    across.plot(values, (0, 1))
    up.plot((0, 1), values)
    within_hundred(across, horizontal=True)
    within_hundred(up)
    for limits in (across.get_xlim(), up.get_ylim()):
        assert limits[1] == pytest.approx(ends[1])
        assert ends[0] is None or limits[0] == pytest.approx(ends[0])


def test_marked_steps_are_said() -> None:
    assert marked_steps(3) == "markers: every added layer"
    assert marked_steps(60) == "markers: 1, 2, 5, 10, 20 and 50 layers"

import pytest
from matplotlib.figure import Figure

from gradsim.plots.marks import logarithmic, marked_steps


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


def test_marked_steps_are_said() -> None:
    assert marked_steps(3) == "marks: every layer more"
    assert marked_steps(60) == "marks: 1, 2, 5, 10, 20 and 50 layers"

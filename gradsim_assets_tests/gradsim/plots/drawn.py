"""What stands in a figure, as arrays: matplotlib annotates what its artists return as more than it is."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.lines import Line2D


def x_values(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata())


def y_values(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata())


def points(line: Line2D) -> np.ndarray:
    return np.stack([x_values(line), y_values(line)], axis=1)


def line_labelled(axes: Axes, beginning: str) -> Line2D:
    """The only line whose label begins so."""
    (line,) = (line for line in axes.lines if str(line.get_label()).startswith(beginning))
    return line


def segments(lines: Artist) -> list[np.ndarray]:
    assert isinstance(lines, LineCollection)
    return [np.asarray(segment) for segment in lines.get_segments()]


def cells(mesh: Artist, rows: int, columns: int) -> np.ma.MaskedArray:
    assert isinstance(mesh, QuadMesh)
    values = mesh.get_array()
    assert isinstance(values, np.ma.MaskedArray)
    return values.reshape(rows, columns)

"""Types of NumPy arrays, whose shapes docstrings state."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Positions: TypeAlias = NDArray[np.int64]
Members: TypeAlias = NDArray[np.bool_]

"""Array types of the renderer and the layout of its camera array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Index = NDArray[np.uint32]  # unsigned: compiled code does not check for negative indices
Bytes = NDArray[np.uint8]

# Columns of a camera array (15,): position, three axes of length 1, 1 / focal length and principal point in pixels.
EYE, RIGHT, UP, BACKWARD, INVERSE_FOCAL, CENTER_X, CENTER_Y = 0, 3, 6, 9, 12, 13, 14

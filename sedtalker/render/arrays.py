"""The kinds of arrays that drawing works on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Index = NDArray[np.uint32]  # unsigned, so that the compiler does not look for negative ones
Bytes = NDArray[np.uint8]

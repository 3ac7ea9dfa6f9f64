"""The compiler of the drawing loops: each compiles once a machine, and runs without the interpreter lock."""

from __future__ import annotations

from sedtalker.resources import use_numba_cache

use_numba_cache()

from numba import njit  # noqa: E402

exact = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
"""Arithmetic as written: for what decides which sample belongs to whom."""

fast = njit(cache=True, nogil=True, error_model="numpy", _nrt=False, fastmath=True)
"""Arithmetic that the compiler may reorder and run side by side: for what decides how bright it is."""

inlined = njit(cache=True, nogil=True, error_model="numpy", _nrt=False, forceinline=True)
"""What is called for every pixel: handing over its many arguments would cost more than the work."""

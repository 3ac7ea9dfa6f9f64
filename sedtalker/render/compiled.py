"""Numba options of the drawing loops: compiled once per machine, and run without the interpreter lock."""

from __future__ import annotations

from sedtalker.kernels import compiler

_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False, "no_cfunc_wrapper": True}

compiled = compiler(**_OPTIONS)
"""Decorator of drawing functions that gives the same bits on every processor.

It does not use `fastmath`, which permits approximate reciprocals and fused multiply-add.
"""

inlined = compiler(**_OPTIONS, forceinline=True, no_cpython_wrapper=True)
"""Decorator of small functions that are called for every pixel and must be inlined.

Only compiled functions can call them: they have no wrapper for Python. Tests use the attribute `py_func`.
"""

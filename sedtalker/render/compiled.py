"""The compiler of the drawing loops: each compiles once a machine, and runs without the interpreter lock."""

from __future__ import annotations

from sedtalker.kernels import compiler

_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False, "no_cfunc_wrapper": True}

compiled = compiler(**_OPTIONS)
"""Arithmetic as written, in the order written: the same bits from every processor.

No `fastmath`: it would let the compiler take a processor's own reciprocals and fused steps.
"""

inlined = compiler(**_OPTIONS, forceinline=True, no_cpython_wrapper=True)
"""What is called for every pixel: handing over its many arguments would cost more than the work.

Only compiled functions call these; a way in from Python would be compiled in vain. `py_func` is the function itself.
"""

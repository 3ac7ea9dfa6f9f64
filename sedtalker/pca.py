"""Principal components by the eigenvectors of the smaller Gram matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def principal_components(rows: NDArray[np.floating], count: int, tolerance: float = 0.0) -> NDArray[np.float32]:
    """Orthonormal directions (K, D) of the largest mean square of rows (N, D), largest first.

    The rows are not centred: subtract their mean first where zero is not the origin.

    Args:
        rows: (N, D) of any unit.
        count: K at most; min(N, D) also limits it.
        tolerance: stop at the first K whose residual has a smaller root mean square over all N * D values, in the unit
            of the rows.
    """
    values = rows.astype(np.float64)
    wide = values.shape[0] < values.shape[1]
    energies, vectors = np.linalg.eigh(values @ values.T if wide else values.T @ values)
    energies, vectors = energies[::-1], vectors[:, ::-1]
    residual = np.sqrt(np.maximum(energies.sum() - np.cumsum(energies), 0) / values.size)
    enough = residual < tolerance
    kept = min(count, 1 + int(np.argmax(enough)) if enough.any() else len(energies))
    if not wide:
        return vectors[:, :kept].T.astype(np.float32)
    # QR instead of a division by the singular values: directions without energy are orthonormal too
    directions, triangle = np.linalg.qr(values.T @ vectors[:, :kept])
    return (directions * np.where(np.diag(triangle) < 0, -1.0, 1.0)).T.astype(np.float32)

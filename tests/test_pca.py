"""Principal components against numpy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.pca import principal_components

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(20, 300), (300, 20)])
def test_directions_are_the_right_singular_vectors(shape: tuple[int, int]) -> None:
    rows = RNG.standard_normal((shape[0], 8)) * 2.0 ** -np.arange(8) @ RNG.standard_normal((8, shape[1]))
    directions = principal_components(rows, 6)
    expected = np.linalg.svd(rows, full_matrices=False)[2][:6]
    assert directions.shape == (6, shape[1])
    np.testing.assert_allclose(np.abs((directions * expected).sum(axis=1)), 1, atol=1e-5)


def test_directions_without_energy_are_orthonormal_too() -> None:
    rows = RNG.standard_normal((10, 3)) @ RNG.standard_normal((3, 50))
    directions = principal_components(rows, 8)
    np.testing.assert_allclose(directions @ directions.T, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(rows @ directions.T @ directions, rows, atol=1e-5)


def test_tolerance_keeps_the_fewest_directions_that_reach_it() -> None:
    rows = np.diag([4.0, 2.0, 1.0, 0.1]) @ np.linalg.qr(RNG.standard_normal((30, 4)))[0].T

    def residual(count: int) -> float:
        directions = principal_components(rows, count)
        return float(np.sqrt(np.square(rows - rows @ directions.T @ directions).mean()))

    tolerance = (residual(2) + residual(3)) / 2
    assert len(principal_components(rows, 30, tolerance)) == 3
    assert len(principal_components(rows, 2, tolerance)) == 2
    assert len(principal_components(rows, 30)) == 4


def test_rows_are_not_centred() -> None:
    rows = np.full((5, 12), 2.0)
    np.testing.assert_allclose(np.abs(principal_components(rows, 1)), 1 / np.sqrt(12), atol=1e-6)

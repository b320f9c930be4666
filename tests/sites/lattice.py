"""Lattice reduction, and the attack on sums that it makes possible.

A feature of n samples with few decimals is n whole numbers k, times a grid. Whoever
knows the covariates knows orthonormal columns Q, and the sums tell Qᵀk grid = u. So k is
a point of the lattice with the basis [1, w Q] close to (anything, w u / grid): with w large
enough the closest point is the truth, and it is found by reducing the basis.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

SCALE = 1000
"""By which all is multiplied, for whole numbers to be exact enough."""


def lll(basis):
    """A basis of short vectors of the same lattice (Lenstra, Lenstra & Lovász 1982)."""
    basis = basis.astype(np.int64).copy()
    k = 1
    while k < len(basis):
        r = np.linalg.qr(basis[: k + 1].astype(float).T, mode="r")
        for j in range(k - 1, -1, -1):
            times = np.rint(r[j, k] / r[j, j])
            basis[k] -= int(times) * basis[j]
            r[: j + 1, k] -= times * r[: j + 1, j]
        if r[k, k] ** 2 + r[k - 1, k] ** 2 < 0.99 * r[k - 1, k - 1] ** 2:
            basis[[k - 1, k]] = basis[[k, k - 1]]
            k = max(k - 1, 1)
        else:
            k += 1
    return basis


def closest(basis, target):
    """A lattice point near a target (Babai 1986)."""
    q, r = np.linalg.qr(basis.astype(float).T)
    left = target.astype(float)
    for j in range(len(basis))[::-1]:
        left = left - np.rint(q[:, j] @ left / r[j, j]) * basis[j]
    return target - left


def directions(z):
    """Orthonormal columns of a constant and the covariates: (n, p + 1)."""
    q, r = np.linalg.qr(np.column_stack([np.ones(len(z)), z - z.mean(axis=0)]))
    return q * np.sign(np.diag(r))


def told_by(sums, z, feature):
    """Qᵀx of a feature, from its mean and its cross-products: (p + 1,)."""
    q, centred = directions(z)[:, 1:], z - z.mean(axis=0)
    cross = np.linalg.solve(centred.T @ q, sums.cross[0, :, feature])
    return np.concatenate([[np.sqrt(len(z)) * sums.mean[0, feature]], cross])


def short_vectors(z, digits):
    """A reduced basis for sums that are told to so many bits of a standard deviation."""
    q = directions(z)
    weight = 2.0 ** min(digits, 40)
    columns = [SCALE * np.eye(len(z)), np.rint(SCALE * weight * q)]
    return lll(np.hstack(columns)), weight


def attack(reduced, z, u, grid):
    """The values of all samples, as the lattice of `short_vectors` says."""
    basis, weight = reduced
    q, middle = directions(z), np.rint(u[0] / np.sqrt(len(z)) / grid)
    aim = weight * (u / grid - q.sum(axis=0) * middle)
    found = closest(basis, SCALE * np.concatenate([np.zeros(len(z)), aim]))
    return (np.rint(found[: len(z)] / SCALE) + middle) * grid


def others(reduced, x, grid, rng, tries=20_000):
    """Values on the grid whose sums are near those of `x`: (tries, n)."""
    steps = reduced[0][:, : len(x)] // SCALE
    times = [rng.integers(-2, 3, (tries, len(steps))) for _ in range(2)]
    return x + reduce(np.multiply, times) @ steps * grid

r"""Whether the arrays of a file can be the moments of samples: if not, what is wrong.

Of a batch of n samples with columns z and a feature x,

    S and [S C; Cᵀ M] are positive semidefinite,

that is |L⁻¹C|² ≤ M with S = L Lᵀ; a level with the share z̄ has S = n z̄ (1 - z̄), and two
of one covariate have S = -n z̄ z̄'. All hold for rounded sums as well (`rounding`).
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from batchcorr._files.expected import Expected
from batchcorr._files.npz import shape_of, take
from batchcorr.errors import InputError, some
from batchcorr.models.moments import Moments
from batchcorr.sites.basis import Basis
from batchcorr.sites.disclosure import FEWEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.sites.schema import Schema

__all__ = ["read_sums", "what_is_wrong"]

CLOSE = 1e-5
"""Relative error up to which what must be equal is, after sums of many samples."""


def read_sums(arrays: Mapping[str, NDArray[np.generic]], schema: Schema) -> Moments:
    """The moments in a file of a site, of which nothing is read that cannot be.

    Raises
    ------
    InputError
        If arrays are missing, too many, of another shape or kind, or not finite.
    """
    other = sorted({*arrays} ^ {field.name for field in fields(Moments)})
    if other:
        msg = f"it contains unknown arrays ({some(other)})."
        raise InputError(msg)
    b, g, p = len(schema.batches), len(schema.features), len(schema.columns)
    own = g if shape_of(arrays, "n") == (b, g) else 1
    expected = {
        "rows": Expected((b, 1)),
        "n": Expected((b, own)),
        "mean": Expected((b, g)),
        "squares": Expected((b, g)),
        "columns": Expected((b, p, own)),
        "cross": Expected((b, p, g)),
        "gram": Expected((b, p, p, own)),
    }
    return Moments(**take(arrays, expected))


def what_is_wrong(sums: Moments, schema: Schema, n_rows: object) -> str:
    """Why these cannot be moments of a site; nothing if they can be."""
    if sums.rows.sum() != n_rows or not _are_counts(
        sums, has_columns=bool(schema.columns)
    ):
        return "its counts are not those of a site"
    for code, batch in enumerate(schema.batches):
        wrong = _not_of_samples(sums, code, schema)
        if wrong:
            return f"in batch {batch!r}, {wrong}"
    return ""


def _are_counts(sums: Moments, *, has_columns: bool) -> bool:
    """Whether samples and values are counted, and all values or none beside columns."""
    rows, n = sums.rows, sums.n
    whole = all(np.array_equal(x, np.floor(x)) and x.min() >= 0 for x in (rows, n))
    few = any(((x > 0) & (x < FEWEST)).any() for x in (rows, n))
    parted = has_columns and ((n > 0) & (n < rows)).any()
    return whole and not few and not parted and bool((n <= rows).all())


def _not_of_samples(sums: Moments, batch: int, schema: Schema) -> str:
    """What of one batch no samples have."""
    n = np.broadcast_to(sums.n[batch], sums.mean[batch].shape)
    given = n > 0
    parts = [sums.mean, sums.squares, sums.cross, sums.columns, sums.gram]
    for part in parts:
        values = np.broadcast_to(part[batch], (*part[batch].shape[:-1], len(n)))
        if values[..., ~given].any():
            return "there are sums of no values"
    if (sums.squares[batch] < 0).any():
        return "squares are negative"
    if not schema.columns or not given.any():
        return ""
    where = np.flatnonzero(given) if sums.by_feature else np.zeros(1, int)
    shares, gram = sums.columns[batch][:, where], sums.gram[batch][:, :, where]
    if (np.ptp(shares, axis=-1) > 0).any() or (np.ptp(gram, axis=-1) > 0).any():
        return "the columns of features differ"
    return _not_of_columns(
        shares[:, 0], gram[..., 0], float(sums.rows[batch, 0]), schema
    ) or _not_of_features(sums, batch, gram[..., 0])


def _not_of_columns(
    shares: NDArray[np.float64], gram: NDArray[np.float64], n: float, schema: Schema
) -> str:
    size = np.sqrt(np.clip(np.diag(gram), 0, None))
    scaled = gram / np.outer(np.where(size > 0, size, 1), np.where(size > 0, size, 1))
    if (np.diag(gram) < 0).any() or not np.allclose(gram, gram.T):
        return "products of columns are no squares"
    if np.linalg.eigvalsh(scaled).min() < -CLOSE:
        return "products of columns are not positive semidefinite"
    binary = np.asarray(schema.metadata.binary)
    terms = np.asarray(schema.metadata.terms)
    counts = n * shares[binary]
    if not np.allclose(counts, np.rint(counts), rtol=0, atol=CLOSE * n):
        return "levels have no whole number of samples"
    for term in np.unique(terms[binary]):
        mine = np.flatnonzero(terms == term)
        share = shares[mine]
        expected = n * (np.diag(share) - np.outer(share, share))
        if share.min() < -CLOSE or share.sum() > 1 + CLOSE:
            return f"levels of {term!r} have no shares between 0 and 1"
        if not np.allclose(gram[np.ix_(mine, mine)], expected, rtol=0, atol=CLOSE * n):
            return f"products of the levels of {term!r} are not those of their shares"
    return ""


def _not_of_features(sums: Moments, batch: int, gram: NDArray[np.float64]) -> str:
    basis, squares = Basis(gram), sums.squares[batch]
    u = basis.coordinates(sums.cross[batch])
    rest = np.abs(sums.cross[batch] - basis.factor @ u)
    bound = CLOSE * np.sqrt(np.outer(np.diag(gram), squares))
    if ((u**2).sum(axis=0) > (1 + CLOSE) * squares).any() or (rest > bound).any():
        return "products of features and columns are larger than their squares allow"
    return ""

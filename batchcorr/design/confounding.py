r"""Which columns the batches, or each other, leave undetermined; and how closely.

A combination of columns is confounded with batch exactly when it does not vary inside
any batch. With W = Σ_b S_b the columns' squares within batches and T their squares in
all, columns are taken one by one, nuisances first; one whose squares in W, after those
before it are swept out, fall under 1e-9 of its squares in T cannot be told apart. Where
the columns themselves are at hand, and not only their products, that is 1e-14: as R's lm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.design.findings import Finding
from batchcorr.errors import DesignError, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

__all__ = [
    "ColumnProducts",
    "association",
    "check_estimable",
    "independent",
    "redundant_nuisances",
    "unestimable",
]

TOLERANCE = 1e-9
"""Share of its squares that a column must have for itself, known by its products."""

FINE_TOLERANCE = 1e-14
"""The same where the columns are known."""

ILL = 1e-2
"""Smallest singular value of the scaled columns under which products lose digits."""

LISTED = 5


@dataclass(frozen=True)
class ColumnProducts:
    """Squares and products of p design columns, within batches and in all.

    Attributes
    ----------
    root
        A with AᵀA = W, which keeps twice the digits: (k, p).
    total
        T: (p, p).
    n, n_batches
        Rows and batches they were gathered over.
    tolerance
        Share of its squares that a column must have for itself.
    """

    root: NDArray[np.float64]
    total: NDArray[np.float64]
    n: float
    n_batches: int
    tolerance: float = TOLERANCE

    @classmethod
    def of(
        cls,
        n: NDArray[np.float64],
        means: NDArray[np.float64],
        gram: NDArray[np.float64],
    ) -> ColumnProducts:
        """Build from rows (B,), column means (B, p) and within-batch products (B,p,p)."""
        within = gram.sum(axis=0)
        norms = np.sqrt(np.diag(within))
        norms[norms == 0] = 1.0
        values, vectors = np.linalg.eigh(within / np.outer(norms, norms))
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T * norms
        total = within + _between(n, means)
        return cls(root, total, float(n.sum()), int((n > 0).sum()))

    @classmethod
    def of_moments(cls, moments: Moments) -> ColumnProducts:
        """Those of the fullest feature's rows."""
        k = int(np.argmax(moments.n.sum(axis=0)))
        return cls.of(
            moments.n[:, k], moments.columns[:, :, k], moments.gram[:, :, :, k]
        )

    @classmethod
    def of_design(cls, design: Design) -> ColumnProducts:
        """Build from the columns themselves."""
        means, centred = design.centred
        norms = np.linalg.norm(centred, axis=0)
        norms[norms == 0] = 1.0
        root = np.linalg.qr(centred / norms, mode="r") * norms
        n = design.counts.astype(np.float64)
        total = root.T @ root + _between(n, means)
        filled = int((n > 0).sum())
        return cls(root, total, float(n.sum()), filled, FINE_TOLERANCE)

    @property
    def within(self) -> NDArray[np.float64]:
        """W: (p, p)."""
        products: NDArray[np.float64] = self.root.T @ self.root
        return products

    def condition(self, columns: Sequence[int]) -> float:
        """Condition number of the products of those columns that vary within batches."""
        norms = np.linalg.norm(self.root[:, columns], axis=0)
        part = self.root[:, columns][:, norms > 0] / norms[norms > 0]
        if part.shape[1] < 2:
            return 1.0
        values = np.linalg.svd(part, compute_uv=False)
        return float((values[0] / values[-1]) ** 2) if values[-1] > 0 else np.inf

    def is_ill(self, columns: Sequence[int]) -> bool:
        """Whether products of some columns lose digits that the columns have."""
        if not columns:
            return False
        scaled = self.root[:, columns] / np.sqrt(np.diag(self.total)[columns])
        return bool(np.linalg.svd(scaled, compute_uv=False)[-1] < ILL)


def _between(n: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of columns between batches, of their means: (p, p)."""
    centre = n @ means / max(n.sum(), 1.0)
    off = np.sqrt(n)[:, None] * (means - centre)
    products: NDArray[np.float64] = off.T @ off
    return products


def _dependent(
    products: ColumnProducts, order: Sequence[int]
) -> tuple[list[int], dict[int, list[int]]]:
    """Sweep columns in order; return the independent, and for each other its partners.

    A column's partners are the earlier columns that, with the batches, explain it.
    """
    size = np.diag(products.total)
    free: list[int] = []
    partners: dict[int, list[int]] = {}
    for column in order:
        if size[column] <= 0:
            partners[column] = []
            continue
        scaled = products.root[:, free] / np.sqrt(size[free])
        mine = products.root[:, column]
        weights = np.linalg.lstsq(scaled, mine)[0]
        left = np.sum((mine - scaled @ weights) ** 2)
        if left > products.tolerance * size[column]:
            free.append(column)
        else:
            relative = np.abs(weights) / np.sqrt(size[column])
            partners[column] = [
                k for k, w in zip(free, relative, strict=True) if w > 1e-6
            ]
    return free, partners


def redundant_nuisances(products: ColumnProducts, kept: int) -> list[int]:
    """Return the nuisance columns that batch and earlier nuisances already explain."""
    order = range(kept, len(products.total))
    return sorted(_dependent(products, order)[1])


def independent(products: ColumnProducts, kept: int) -> list[int] | None:
    """Return the columns to fit, or None where a kept one depends on others."""
    free, partners = _dependent(products, _order(products, kept))
    return None if any(column < kept for column in partners) else sorted(free)


def _order(products: ColumnProducts, kept: int) -> list[int]:
    """Nuisances first: kept columns must stand beside all of them."""
    return [*range(kept, len(products.total)), *range(kept)]


def check_estimable(
    products: ColumnProducts, names: Sequence[str], terms: Sequence[str], kept: int
) -> None:
    """Refuse protected columns that batch, nuisances or each other determine.

    Parameters
    ----------
    products, names, terms, kept
        As in `unestimable`.

    Raises
    ------
    DesignError
        Names the covariates, and says with what they are confounded.
    """
    finding = unestimable(products, names, terms, kept)
    if finding is not None:
        raise DesignError(finding.text)


def unestimable(
    products: ColumnProducts, names: Sequence[str], terms: Sequence[str], kept: int
) -> Finding | None:
    """The finding that protected columns are determined by others, None if none is.

    Parameters
    ----------
    products
        Squares of all columns, kept ones first.
    names, terms
        Name of every column, and of the covariate it belongs to.
    kept
        Number of protected columns.
    """
    _, partners = _dependent(products, _order(products, kept))
    guilty = [column for column in partners if column < kept]
    if not guilty:
        return None
    column = guilty[0]
    involved = sorted({terms[k] for k in [column, *partners[column]]})
    if _repeat_each_other(products, column, partners[column]):
        return Finding(
            "blocks",
            "repeated",
            f"The covariates {_listed(involved)} repeat each other: {names[column]!r} is "
            "a combination of the others.",
            "Keep one of them.",
        )
    blamed = sorted({terms[k] for k in guilty})
    also = sorted(set(involved) - set(blamed))
    joint = f" together with {_listed(also)}" if also else ""
    vary = "do not vary" if len(guilty) > 1 else "does not vary"
    verb = "are" if len(blamed) > 1 else "is"
    return Finding(
        "blocks",
        "confounded",
        f"{_listed(blamed)} {verb} confounded with batch{joint}: "
        f"{_listed([names[k] for k in guilty])} {vary} inside any batch beyond what the "
        "other columns say, so no data can tell its effect from the batch effect.",
        "Leave it out, or merge or drop the batches that hold only one of its values; "
        "correcting without it removes its effect wherever it differs between batches.",
    )


def _repeat_each_other(
    products: ColumnProducts, column: int, others: list[int]
) -> bool:
    """Whether the columns are dependent even before batches are taken into account."""
    if not others:
        return False
    known = products.total[np.ix_(others, others)]
    right = products.total[others, column]
    left = products.total[column, column] - right @ np.linalg.lstsq(known, right)[0]
    return bool(left <= TOLERANCE * products.total[column, column])


def _listed(names: Sequence[str]) -> str:
    quoted = [repr(name) for name in names]
    if len(quoted) > LISTED:
        return some(quoted, LISTED)
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def association(products: ColumnProducts, columns: Sequence[int]) -> float:
    """Return how strongly batch predicts a covariate: 0 not at all, 1 wholly.

    The largest canonical correlation between batch and the covariate's columns, its
    square adjusted for the number of batches as an adjusted R². For two groups in two
    batches it is the phi coefficient.
    """
    pick = np.ix_(list(columns), list(columns))
    values = np.linalg.eigvals(
        np.linalg.lstsq(products.total[pick], products.within[pick])[0]
    )
    explained = 1 - min(float(np.min(values.real)), 1.0)
    spare = products.n - products.n_batches
    if spare <= 0:
        return float(np.sqrt(explained))
    adjusted = 1 - (1 - explained) * (products.n - 1) / spare
    return float(np.sqrt(np.clip(adjusted, 0.0, 1.0)))

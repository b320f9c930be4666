"""What is known of samples as two models: all of it, and the part without what is tested.

Both have an intercept. Columns of the smaller one are part of the larger in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from batchcorr.design.covariates import CovariateEncoding
from batchcorr.errors import DesignError, some

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["KnownModel"]

TOLERANCE = 1e-9
"""Share of a column's length under which what others leave of it is rounding."""


class KnownModel(NamedTuple):
    """Design columns of n samples.

    Attributes
    ----------
    full
        Intercept, covariates and what the null model adds to them: (n, p).
    null
        Intercept and the columns of the null model: (n, q).
    terms
        The names of the covariates, and of those of the null model.
    """

    full: Floats
    null: Floats
    terms: tuple[str, ...] = ()
    null_terms: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, n: int, covariates: object, null: object, *, formula: str | None = None
    ) -> Self:
        """Read covariates of n samples, and those of them that are not of interest.

        Raises
        ------
        DesignError
            If columns repeat each other, or there are as many as samples.
        """
        fit = CovariateEncoding.fit_transform
        kept, columns = fit(covariates, n, formula=formula)
        other, of_null = fit(null, n, role="null covariate")
        one = np.ones((n, 1))
        smaller = _independent(one, of_null, other.names, refuse=True)
        full = _independent(one, columns, kept.names, refuse=True)
        full = _independent(full, smaller[:, 1:], other.names, refuse=False)
        if full.shape[1] >= n - 1:
            msg = (
                f"The covariates have {full.shape[1]} design columns for {n} samples, "
                "which leaves no residuals to estimate surrogate variables from: give "
                "fewer covariates."
            )
            raise DesignError(msg)
        terms = (tuple(dict.fromkeys(each.terms)) for each in (kept, other))
        return cls(full, smaller, *terms)

    @property
    def of_interest(self) -> int:
        """Columns that the null model does not have."""
        return int(self.full.shape[1] - self.null.shape[1])


def _independent(
    before: Floats, columns: Floats, names: tuple[str, ...], *, refuse: bool
) -> Floats:
    """Columns with those that say more; repetitions are refused, or left out."""
    basis, together, repeated = np.linalg.qr(before)[0], [before], []
    for name, column in zip(names, columns.T, strict=True):
        left = column - basis @ (basis.T @ column)
        left -= basis @ (basis.T @ left)
        size = np.linalg.norm(left)
        if size <= TOLERANCE * np.linalg.norm(column):
            repeated.append(name)
            continue
        basis = np.column_stack([basis, left / size])
        together.append(column[:, None])
    if repeated and refuse:
        msg = (
            f"The covariates {some(map(repr, repeated))} are determined by the "
            "covariates before them: leave them out."
        )
        raise DesignError(msg)
    return np.hstack(together)

r"""The linear model with batch intercepts and one at random for every subject.

    x[i, g] = α[b, g] + z[i] β[:, g] + u[subject of i, g] + ε

by restricted maximum likelihood, feature by feature. What is left of a batch is measured
about α_b + z β + u, so that its mean is 0 by the normal equations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np

from batchcorr.models.linear_model import LinearFit
from batchcorr.models.random_intercept import SubjectSums, fit_random_intercept

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int32]

__all__ = ["SubjectFit"]

BLOCK = 2048
"""Features read at a time."""


@dataclass(frozen=True)
class SubjectFit(LinearFit):
    """A linear fit whose subjects have intercepts of their own.

    Attributes
    ----------
    subjects
        u, predicted: (J, G).
    """

    subjects: Floats

    @classmethod
    def refit(
        cls,
        fit: LinearFit,
        values: Callable[[slice], Floats],
        columns: Floats,
        batch: Codes,
        subject: Codes,
    ) -> Self:
        """Fit features that a fit without subjects can correct anew.

        Parameters
        ----------
        fit
            Without subjects: B batches, p columns.
        values
            Gives all samples of some features, (n, features).
        columns
            Those of the fit: (n, p).
        batch, subject
            Codes of each sample: (n,).
        """
        n_batches, n_features = fit.intercepts.shape
        level = columns.mean(axis=0)
        indicators = (batch[:, None] == np.arange(n_batches)).astype(float)
        design = np.hstack([indicators, columns - level])
        found = {f.name: getattr(fit, f.name) for f in fields(fit)}
        for name in ("coefficients", "intercepts", "residual_squares"):
            found[name] = found[name].copy()
        subjects = np.zeros((int(subject.max()) + 1, n_features))
        varies = ~fit.constant.any(axis=0) & fit.solved
        for start in range(0, n_features, BLOCK):
            part = np.flatnonzero(varies[start : start + BLOCK]) + start
            if not part.size:
                continue
            y = values(slice(start, start + BLOCK))[:, part - start]
            centre = y.mean(axis=0)
            y = y - centre
            mixed = fit_random_intercept(
                SubjectSums.of(y, design, subject.astype(np.intp))
            )
            left = y - design @ mixed.coefficients - mixed.subjects[subject]
            beta = mixed.coefficients[n_batches:]
            alpha = mixed.coefficients[:n_batches] + centre - level @ beta
            found["coefficients"][:, part] = beta
            found["intercepts"][:, part] = alpha
            found["residual_squares"][:, part] = indicators.T @ left**2
            subjects[:, part] = mixed.subjects
        return cls(**found, subjects=subjects)

r"""How often correct-then-test finds something in data where nothing is to be found.

The null data are the data's own. Residuals of the full model stay where they are, and the
rows of the design are permuted within batches, z' = z[π], so that batch, design and
variances are those of the data and nothing depends on z'. Of every permutation one read
gives the sums of [z', z]; those of the residuals x - z β follow,

    C' = C(z', x) - S(z', z) β,        M' = RSS_b,

and from them alone: the correction that keeps z', the sums of the corrected values, the
test of them without batch, and the one-step test. Corrected values are never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import gammaln
from sklearn.base import clone

from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.errors import DesignError, silenced
from batchcorr.estimators import checks
from batchcorr.estimators.progress import progress
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.moderated_t import moderated_f, moderated_t
from batchcorr.models.one_step_test import estimates, moderated, with_batch_weights
from batchcorr.models.variance_prior import VariancePrior

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchcorr.estimators.location_scale import LocationScaleMethod
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]

__all__ = [
    "FEWEST",
    "Correct",
    "NullRates",
    "affine",
    "arrangements",
    "known_effects",
    "null_rates",
    "ordinary_p_values",
]

FEWEST = 20
"""Distinct permutations under which a rate says nothing."""


Correct = Callable[["NDArray[np.intp]", "Moments"], "Moments"]
"""Gives the moments of corrected values, of all batches as one, from permuted rows and the
moments of the values by batch."""


class NullRates(NamedTuple):
    """Shares of features with p < α, of every permutation and contrast.

    With several contrasts the last column is F of all of them.

    Attributes
    ----------
    corrected
        Corrected with the columns kept, then tested without batch: (P, k); None: not asked.
    one_step
        Tested on uncorrected values, batch in the model: (P, k).
    """

    corrected: Floats | None
    one_step: Floats


def null_rates(
    x: object,
    problem: Problem,
    contrasts: Floats,
    correct: Correct | None,
    *,
    n_permutations: int,
    alpha: float,
    equal_variances: bool,
    random: np.random.Generator,
    effects: bool = True,
) -> NullRates:
    """The rates of false positives of two ways to a test, permutation by permutation.

    Parameters
    ----------
    problem
        Its moments, and its design, of kept columns only.
    contrasts
        Weights of the columns, a row a contrast: (k, p).
    correct
        What corrects; None: nothing.
    equal_variances
        False: in the one-step test every batch has a variance of its own.
    effects
        Whether effects of the columns are taken from the values first.

    Raises
    ------
    DesignError
        If a column is confounded with batch, or there are too few permutations.
    """
    design = problem.design
    assert design is not None
    checks.check_variance(LinearFit.of(problem.moments))
    coefficients = known_effects(problem.moments) * effects
    corrected, one_step = [], []
    count = _enough(arrangements(design), n_permutations)
    with progress("permutations", count) as advance, silenced():
        for rows in _permutations(design, count, random):
            null = _null_moments(x, design, rows, coefficients)
            if correct is not None:
                p_values = ordinary_p_values(correct(rows, null), contrasts)
                corrected.append(_share_below(p_values, alpha))
            weighted = null if equal_variances else with_batch_weights(null)[0]
            result = moderated(estimates(weighted, contrasts, null))
            together = result.together
            joint = [] if together is None else [together.p_value]
            p_values = np.vstack([result.each.p_value, *joint])
            one_step.append(_share_below(p_values, alpha))
            advance(1)
    return NullRates(np.array(corrected) if corrected else None, np.array(one_step))


def affine(method: LocationScaleMethod, problem: Problem) -> Correct:
    """What a location-scale method does, told from moments alone.

    Raises
    ------
    DesignError
        If the method refuses the design.
    """
    with silenced():  # what is warned of is what is measured here
        clone(method).fit_moments(problem.moments, problem.metadata)

    def correct(_: NDArray[np.intp], null: Moments) -> Moments:
        fitted = clone(method).fit_moments(null, problem.metadata)
        after = fitted.correction_.moments(null, null.n_columns)
        together: Moments = after.collapse([0] * after.n_batches, 1)
        return together

    return correct


def ordinary_p_values(sums: Moments, contrasts: Floats) -> Floats:
    """The p-values of ordinary t-tests, nothing moderated; and of F, if there are several.

    Parameters
    ----------
    contrasts
        Weights of the columns, a row a contrast: (k, p).

    Returns
    -------
    p-values, (k, G) or with F (k + 1, G): NaN where a feature does not vary.
    """
    fit = LinearFit.of(sums)
    covariance = np.einsum("ip,pqg,jq->ijg", contrasts, fit.covariance, contrasts)
    df = np.broadcast_to(fit.df, (fit.n_features,)).astype(np.float64)
    usable = fit.solved & (df > 0) & (fit.residual_squares[0] > 0)
    variance = np.where(usable, fit.residual_squares[0] / np.maximum(df, 1), np.nan)
    alone = VariancePrior(np.zeros(1), np.zeros(1))
    coefficient = contrasts @ fit.coefficients
    errors = np.sqrt(np.einsum("iig->ig", covariance))
    each = moderated_t(coefficient, errors, variance, df, alone).p_value
    if len(contrasts) == 1:
        return each
    joint = moderated_f(coefficient, covariance, variance, df, alone)
    return np.vstack([each, joint.p_value])


def arrangements(design: Design) -> float:
    """How many different designs the permutations of rows within batches make.

    Examples
    --------
    >>> arrangements(Design.of([0] * 6, covariates=np.eye(2)[[0, 0, 0, 1, 1, 1], 1:]))
    20.0
    """
    log = 0.0
    for batch in range(design.n_batches):
        own = design.columns[design.codes == batch]
        sizes = np.unique(own, axis=0, return_counts=True)[1]
        log += gammaln(len(own) + 1) - gammaln(sizes + 1).sum()
    return float(np.round(np.exp(min(log, 600.0)), 6))


def _enough(distinct: float, wanted: int) -> int:
    """How many permutations to make; too few are refused."""
    if distinct - 1 < FEWEST:
        msg = (
            f"There are only {distinct:.0f} different permutations of the tested "
            f"column within batches; a rate needs at least {FEWEST + 1}. "
            "batchcorr.tl.audit(…, test=…).predicted gives rates without permutations."
        )
        raise DesignError(msg)
    return int(min(wanted, distinct - 1))


def _permutations(
    design: Design, count: int, random: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Orders of the rows, within batches, each of which gives another design."""
    members = [np.flatnonzero(design.codes == b) for b in range(design.n_batches)]
    seen = {_digest(design.columns)}
    order = np.arange(len(design.codes))
    while len(seen) <= count:
        for rows in members:
            order[rows] = random.permutation(rows)
        name = _digest(design.columns[order])
        if name not in seen:
            seen.add(name)
            yield order


def _digest(columns: Floats) -> bytes:
    return blake2b(np.ascontiguousarray(columns).tobytes(), digest_size=16).digest()


def known_effects(sums: Moments) -> Floats:
    """β of features that vary in every batch, (p, G): others stay as they are."""
    constant = ((sums.squares == 0) & (sums.n > 1)).any(axis=0)
    return np.where(constant, 0.0, LinearFit.of(sums).coefficients)


def _null_moments(
    x: object, design: Design, rows: NDArray[np.intp], coefficients: Floats
) -> Moments:
    """Moments of the residuals, with the permuted columns."""
    p = design.columns.shape[1]
    both = np.hstack([design.columns[rows], design.columns])
    sums: Moments = moments(x, Design.of(design.codes, design.n_batches, both))
    gram = sums.gram if sums.gram.shape[-1] > 1 else sums.gram[..., 0]
    explained = (
        np.einsum("bijg,jg->big", gram[:, :, p:], coefficients)
        if gram.ndim == 4
        else gram[:, :, p:] @ coefficients
    )
    left = sums.cross[:, p:] * 2 - explained[:, p:]
    squares = np.maximum(sums.squares - (coefficients * left).sum(axis=1), 0.0)
    return replace(
        sums.select(list(range(p))),
        mean=sums.mean - (sums.columns[:, p:] * coefficients).sum(axis=1),
        squares=np.where(sums.squares > 0, squares, 0.0),
        cross=sums.cross[:, :p] - explained[:, :p],
    )


def _share_below(p_values: Floats, alpha: float) -> Floats:
    """The share of features with p < α, of those that can be tested: (k,)."""
    known = np.isfinite(p_values)
    found = ((p_values < alpha) & known).sum(axis=1)
    share: Floats = found / np.maximum(known.sum(axis=1), 1)
    return share

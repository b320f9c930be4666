"""Whether a correction, then a test, keeps its rate of false positives on these data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from batchcorr._anndata import matrices, records
from batchcorr._anndata.fit import make_estimator
from batchcorr._anndata.labels import read_labels
from batchcorr.errors import DesignError, InputError, silenced
from batchcorr.estimators.audit import INFLATED
from batchcorr.estimators.checks import check_rate
from batchcorr.estimators.contrasts import with_tested
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.null_calibration import null_rates
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.scale import warn_if_unlogged
from batchcorr.tl._audit import audit

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["NullCalibration", "null_calibration"]


@dataclass(frozen=True)
class NullCalibration:
    """The rates of false positives of two ways to a test, on permuted data.

    Parameters
    ----------
    method, test
        What corrects, and the column that is tested; of several levels the worst.
    rates
        A row a way, the method and ``one_step``: ``false_positive_rate`` with the 95 %
        interval of its mean over permutations (``low``, ``high``), and ``predicted``,
        what `audit` says of it (NaN for methods it knows nothing of).
    by_permutation
        The rate of each permutation, a column a way.
    alpha
        The rate that is wanted.

    Examples
    --------
    >>> rates = pd.DataFrame(
    ...     {"false_positive_rate": [0.21, 0.05]}, ["combat", "one_step"]
    ... )
    >>> NullCalibration("combat", "group", rates, pd.DataFrame(), 0.05).flagged
    True
    """

    method: str
    test: str
    rates: pd.DataFrame
    by_permutation: pd.DataFrame = field(repr=False)
    alpha: float = 0.05

    @property
    def flagged(self) -> bool:
        """Whether correcting first finds too much: over 1.6 α, so 8 % where 5 are wanted."""
        return self._rate() > INFLATED * self.alpha

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, as JSON can hold them.

        Returns
        -------
        Method, test, rates, whether they are flagged, and how many permutations.
        """
        rates = self.rates.astype(object).mask(self.rates.isna(), None)
        return {
            "method": self.method,
            "test": self.test,
            "alpha": self.alpha,
            "flagged": self.flagged,
            "permutations": len(self.by_permutation),
            "rates": rates.to_dict(orient="index"),
        }

    def _rate(self) -> float:
        return float(self.rates["false_positive_rate"].to_dict()[self.method])

    def _verdict(self) -> str:
        if self.flagged:
            return (
                f"A test without batch finds too much after {self.method}. Test the "
                "uncorrected values with batch in the model: "
                f"batchcorr.tl.differential(adata, …, {self.test!r})."
            )
        return (
            f"A test without batch keeps its rate, or nearly so, after {self.method}."
        )

    def __str__(self) -> str:
        shown = self.rates.map(lambda value: "" if np.isnan(value) else f"{value:.1%}")
        return (
            f"Share of features with p < {self.alpha:g} where nothing is to be found "
            f"({len(self.by_permutation)} permutations of {self.test!r} within batches):\n"
            f"{shown.to_string()}\n{self._verdict()}"
        )

    def _repr_html_(self) -> str:
        from html import escape

        table = self.rates.to_html(float_format="{:.3f}".format, na_rep="", escape=True)
        about = (
            f"Share of features with p &lt; {self.alpha:g} where nothing is to be found, "
            f"over {len(self.by_permutation)} permutations of {escape(self.test)} within "
            "batches"
        )
        return f"<p>{about}</p>{table}<p>{escape(self._verdict())}</p>"


def null_calibration(
    adata: AnnData,
    batch_key: str,
    test: str,
    *,
    method: str = "combat",
    covariates: Any = None,
    layer: str | None = None,
    n_permutations: int = 50,
    alpha: float = 0.05,
    equal_variances: bool = True,
    random_state: int = 0,
    **parameters: Any,
) -> NullCalibration:
    r"""Say whether correcting and then testing keeps its rate of false positives here.

    What batch, covariates and the tested column explain is taken away, and the samples'
    columns are permuted within batches,

    .. math:: x_i - z_i β = α_{b(i)} + ε_i, \qquad z'_i = z_{π(i)},

    so that batches and their variances are those of the data, and nothing is to be found
    for z'. Each time the method corrects with z' kept, and z' is tested by an ordinary
    t-test without batch; beside it stands the one-step test, batch in the model.

    Parameters
    ----------
    adata
        Samples × features, on a log scale and not corrected.
    batch_key
        Column of `obs` with the batch.
    test
        Column of `obs` that will be tested: levels against the first, or a number.
    method
        Name of a location-scale method, such as combat, standardize,
        remove_batch_effect.
    covariates
        What else is kept and in the test: columns of `obs`, a formula, or a table. They
        are permuted along, so that they go with the tested column as they do.
    layer
        Layer to look at; None: X.
    n_permutations
        How many, or as many as there are.
    alpha
        The rate of false positives that is wanted.
    equal_variances
        False: every batch has its own variance in the one-step test.
    random_state
        Seed of the permutations.
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    A `NullCalibration`: ``rates``, ``flagged``, ``by_permutation``; ``to_dict()``; it
    prints as text and shows in a notebook.

    Raises
    ------
    InputError
        If the method is not a location-scale one, or has no such parameter.
    DesignError
        If the tested column is confounded with batch, or the samples of batches can be
        arranged in too few ways for a rate (under 21).
    MissingKeyError
        If a column, layer or method does not exist.

    Warns
    -----
    CountsWarning
        If the values are not on a log scale.
    RepeatWarning
        If they were corrected before.

    Notes
    -----
    One read of the matrix a permutation; corrected values are never formed, so that
    memory is O(B p G). The interval is that of the mean over permutations of these
    samples; features that go together widen it. Samples must be independent: cells of one
    person are not.

    References
    ----------
    Nygaard, Rødland & Hovig (2016), Biostatistics 17:29-39. Freedman & Lane (1983),
    J. Bus. Econ. Stat. 1:292-298.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :500].copy()
    >>> result = bc.tl.null_calibration(adata, "batch", "cancer", n_permutations=20)
    >>> result.flagged
    True
    >>> bool(result.rates.loc["one_step", "false_positive_rate"] < 0.07)
    True
    """
    matrices.require_adata(adata)
    _check(batch_key, test, n_permutations, alpha, random_state)
    labels = read_labels(adata, batch_key, covariates, None)
    table, formula = with_tested(
        adata.obs, labels.given.covariates, labels.formula, test
    )
    estimator = make_estimator(method, parameters, formula)
    if not fits_moments(estimator):
        msg = (
            f"{method} is not a location-scale method, and its result is not told by "
            "sums: take one of combat, standardize, remove_batch_effect."
        )
        raise InputError(msg)
    given = matrices.get_matrix(adata, layer)
    records.warn_if_repeated(records.steps_of(adata, layer, given), layer, kept=True)
    x = as_matrix(given)
    warn_if_unlogged(x, method)
    problem = Problem.of(x, Labels(labels.given.batch, table), formula=formula)
    rates = null_rates(
        x,
        problem,
        _tested(problem, test),
        estimator,
        n_permutations=n_permutations,
        alpha=alpha,
        equal_variances=equal_variances,
        random=np.random.default_rng(random_state),
    )
    with silenced():
        predicted = audit(
            adata, batch_key, covariates=covariates, test=test, alpha=alpha, layer=layer
        ).predicted
    worst = int(rates.corrected.mean(axis=0).argmax())
    each = {method: rates.corrected[:, worst], "one_step": rates.one_step[:, worst]}
    found = pd.DataFrame(
        [_interval(values) for values in each.values()],
        columns=["false_positive_rate", "low", "high"],
        index=pd.Index(each, name="road"),
    )
    found["predicted"] = predicted["false_positive_rate"].reindex(found.index)
    return NullCalibration(method, test, found, pd.DataFrame(each), float(alpha))


def _check(
    batch_key: Any, test: Any, n_permutations: Any, alpha: Any, random_state: Any
) -> None:
    """Refuse what is not of the right kind."""
    for name, value in (("batch_key", batch_key), ("test", test)):
        if not isinstance(value, str):
            msg = f"{name} must be the name of one column of adata.obs, not {value!r:.60}."
            raise InputError(msg)
    for name, value, least in (
        ("n_permutations", n_permutations, 2),
        ("random_state", random_state, 0),
    ):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            msg = (
                f"{name} must be a whole number of at least {least}, not {value!r:.60}."
            )
            raise InputError(msg)
    check_rate(alpha)


def _tested(problem: Problem, test: str) -> list[int]:
    """The design columns of the tested one."""
    terms = problem.metadata.terms[: problem.metadata.kept]
    columns = [place for place, term in enumerate(terms) if term == test]
    if not columns:
        msg = (
            f"{test!r} does not vary, or is not among the covariates as a main effect: "
            "there is nothing to test."
        )
        raise DesignError(msg)
    return columns


def _interval(rates: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean over permutations and its 95 % interval."""
    mean, n = rates.mean(), len(rates)
    reach = stdtrit(n - 1, 0.975) * rates.std(ddof=1) / np.sqrt(n)
    return float(mean), float(max(mean - reach, 0)), float(min(mean + reach, 1))

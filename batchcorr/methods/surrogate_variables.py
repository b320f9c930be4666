r"""Surrogate variables: columns estimated from the data for unrecorded batches.

    x = μ + z β + v γ + ε

with z known and v not. sva finds v in what z leaves of features that follow v and not z;
RUV in features, or samples, that z is known not to change. Nothing is corrected here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from batchcorr.estimators import surrogate_checks, surrogate_columns, surrogate_inputs
from batchcorr.estimators.fitted_surrogates import FittedSurrogates
from batchcorr.estimators.inputs import check_features_order, check_order
from batchcorr.estimators.known_model import KnownModel
from batchcorr.estimators.matrix import matrix_to_fit
from batchcorr.estimators.record import MethodRecord
from batchcorr.estimators.scale import warn_if_unlogged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SurrogateVariables"]


class SurrogateVariables(FittedSurrogates):
    r"""Estimate surrogate variables for unrecorded batches (sva, RUV).

    .. math:: x_{ig} = μ_g + z_i β_g + v_i γ_g + ε_{ig}, \qquad v \text{ unknown}

    Parameters
    ----------
    n_variables
        Number of surrogate variables, k. None: as many as explain more variance of the
        residuals than of permuted residuals (first three methods only).
    method
        ``"sva"``: features are weighted, iteratively, by the probability that they
        depend on v and not on the covariates of interest. ``"two_step"``: features
        associated with each component of the residuals. ``"supervised"``: features
        weighted by `controls`. ``"ruvg"``: components of the `controls`; ``"ruvs"``: of
        differences between `replicates` (with `controls` the factors of RUV-III);
        ``"ruvr"``: of the residuals from the covariates.
    rounds
        Number of iterations of ``"sva"``.
    permutations
        Number of permutations used to choose `n_variables`.
    random_state
        Seed of the permutations.
    formula
        Formula over the columns of the covariates to use; None: all columns, as main
        effects.

    Attributes
    ----------
    columns_ : ndarray
        V of the samples of `fit`, (n, k), with unit length except for ``"ruvs"``. Signs
        are arbitrary: the largest entry of each column is made positive.
    weights_ : ndarray
        Weight of each feature, from 0 to 1: (G,).
    p_values_ : ndarray or None
        For each component the share of permutations in which it explains as much
        variance; None if the number was not chosen by permutations.

    Raises
    ------
    DesignError
        Collinear covariates, or too few samples for this many columns.
    InputError
        Missing values; `controls` or `replicates` that are missing or have the wrong
        shape.
    TooLargeError
        If values do not fit into memory (first three methods).

    Warns
    -----
    CountsWarning
        If the values look like counts: take logarithms first (as svaseq does).
    CovariateWarning
        If there are fewer variables than `n_variables`, or none: ``columns_`` is then
        (n, 0).

    Notes
    -----
    sva keeps all values and n² products in memory and reads the matrix twice per
    iteration: it is for hundreds to thousands of samples, not for single cells. RUV
    keeps only n² products of samples and takes all matrix types, sparse and Dask
    included.

    Surrogate variables represent variation that is *not* explained by the covariates.
    Give all variables of interest as covariates: otherwise they are taken for a hidden
    batch and removed. Give known batches both as covariates and as null. If a hidden
    batch is confounded with a variable of interest, no method can separate them, and
    p-values after sva are too small. Use the columns as nuisance in
    `RemoveBatchEffect`, or as covariates in a test.

    References
    ----------
    Leek & Storey (2007), PLoS Genetics 3:e161, and (2008), PNAS 105:18718; Leek (2014),
    Nucleic Acids Research 42:e161; Risso et al. (2014), Nature Biotechnology 32:896;
    R packages sva (`sva`, `num.sv`, `fsva`) and RUVSeq.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> hidden, group = np.tile([0, 1], 10), np.repeat([0, 1], 10)
    >>> x = rng.normal(size=(20, 200))
    >>> x[:, :60] += 2 * hidden[:, None]
    >>> x[:, 40:80] += group[:, None]
    >>> found = SurrogateVariables(1).fit(x, covariates=group[:, None])
    >>> r = np.corrcoef(found.columns_[:, 0], hidden)[0, 1]
    >>> bool(r**2 > 0.95)
    True
    """

    record: ClassVar = MethodRecord(
        "surrogate_variables",
        takes=frozenset({"covariates"}),
        returns="covariates",
        testable=True,
    )

    __metadata_request__fit: ClassVar = {
        "covariates": True,
        "null": True,
        "replicates": True,
    }

    def __init__(
        self,
        n_variables: int | None = None,
        *,
        method: str = "sva",
        rounds: int = 5,
        permutations: int = 20,
        random_state: int = 0,
        formula: str | None = None,
    ) -> None:
        self.n_variables = n_variables
        self.method = method
        self.rounds = rounds
        self.permutations = permutations
        self.random_state = random_state
        self.formula = formula

    def fit(
        self,
        X: object,
        y: object = None,
        *,
        covariates: object = None,
        null: object = None,
        controls: object = None,
        replicates: object = None,
    ) -> Self:
        """Estimate the surrogate variables.

        Parameters
        ----------
        X
            Values on a log scale, samples × features.
        y
            Ignored.
        covariates
            All known variables: those of interest, and known batches.
        null
            The covariates that are not of interest, such as known batches.
        controls
            Negative controls, features known not to depend on the variables of
            interest: true or false, or for ``"supervised"`` probabilities, (G,). None:
            for ``"ruvs"`` and ``"ruvr"`` all features.
        replicates
            For ``"ruvs"``: labels, (n,): samples with the same label are replicates;
            samples without a label are not used.

        Returns
        -------
        The estimator itself.
        """
        surrogate_checks.check_options(self, controls=controls, replicates=replicates)
        samples = self._samples(X)
        check_order(X, covariates=covariates, null=null, replicates=replicates)
        check_features_order(
            samples.features, getattr(controls, "index", None), "controls"
        )
        x = matrix_to_fit(samples.features)
        warn_if_unlogged(x, type(self).__name__, ", or of count + 1 as svaseq does")
        n, n_features = x.shape
        known = KnownModel.of(n, covariates, null, formula=self.formula)
        surrogate_checks.check_model(self.method, known)
        of_controls = surrogate_inputs.read_controls(self.method, controls, n_features)
        sets = surrogate_inputs.read_replicates(replicates, n)
        values = surrogate_inputs.values_of(
            x, self.method, samples.names or self.feature_names_
        )
        count, p_values = self.n_variables, None
        if count is None:
            count, p_values = surrogate_columns.number_of(
                values, known, self.permutations, self.random_state
            )
        surrogate_checks.check_number(count, known)
        found = surrogate_columns.find(
            surrogate_columns.Question(
                self.method, values, known, of_controls, sets, count, self.rounds
            )
        )
        self._remember_features(samples, n_features)
        self.columns_, self.weights_ = found.columns, found.weights
        self.p_values_, self._frozen = p_values, found.frozen
        self._terms = known.terms, known.null_terms
        surrogate_checks.warn_of_fewer(self.columns_.shape[1], self.n_variables)
        return self

    def transform(self, X: object, *, fast: bool = False) -> NDArray[np.float64]:
        """Estimate the surrogate variables of new samples from the frozen fit.

        Parameters
        ----------
        X
            New samples × the features of `fit`.
        fast
            For sva. True: project all new samples together, which is quick; but then
            the result for a sample depends on the other new samples. False: add each
            sample by itself to those of `fit`, O(n G) and n³ for each.

        Returns
        -------
        Surrogate variables of the new samples, (m, k).

        Raises
        ------
        InputError
            With ``"two_step"``, which does not define them, and with ``"ruvr"``, which
            would need the covariates of new samples.
        """
        self._require_fitted()
        samples = self._samples(X)
        x = matrix_to_fit(samples.features)
        self._check_features(samples, x.shape[1])
        assert self._frozen is not None
        frozen = self._frozen | {"weights": self.weights_}
        return surrogate_columns.of_new_samples(
            x, self.columns_, frozen, self.method, fast=fast
        )

    def fit_transform(
        self,
        X: object,
        y: object = None,
        *,
        covariates: object = None,
        null: object = None,
        controls: object = None,
        replicates: object = None,
    ) -> NDArray[np.float64]:
        """Estimate the surrogate variables of samples and return them.

        Parameters
        ----------
        X, y, covariates, null, controls, replicates
            As in `fit`.

        Returns
        -------
        ``columns_``, (n, k).
        """
        self.fit(
            X,
            covariates=covariates,
            null=null,
            controls=controls,
            replicates=replicates,
        )
        return self.columns_

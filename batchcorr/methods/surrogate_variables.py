r"""Batches nobody wrote down: columns found in the data, to give to a model as nuisances.

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
    r"""Find columns for batches that nobody wrote down (sva, RUV).

    .. math:: x_{ig} = μ_g + z_i β_g + v_i γ_g + ε_{ig}, \qquad v \text{ unknown}

    Parameters
    ----------
    n_variables
        How many to find, k. None: as many as explain more of the residuals than they do
        of shuffled ones (for the three of sva only).
    method
        ``"sva"``: features weighed by how likely they follow v and not what is tested,
        in rounds. ``"two_step"``: features marked by each component of the residuals.
        ``"supervised"``: features weighed by `controls`. ``"ruvg"``: components of the
        `controls`. ``"ruvs"``: of differences between `replicates` (with `controls` the
        factors of RUV-III). ``"ruvr"``: of the residuals of the covariates.
    rounds
        Of ``"sva"``.
    permutations
        Shuffles by which the number is chosen.
    random_state
        Seed of the shuffles.
    formula
        Which columns of the covariates to use and how; None: all of them.

    Attributes
    ----------
    columns_ : ndarray
        V of the samples of `fit`, (n, k); of unit length but for ``"ruvs"``. Signs say
        nothing: the largest entry of each is positive.
    weights_ : ndarray
        How much each feature had to say, 0 to 1: (G,).
    p_values_ : ndarray or None
        Share of shuffles in which a component explains as much, by component; where the
        number was chosen by it.

    Raises
    ------
    DesignError
        Covariates that repeat each other, or too few samples for so many columns.
    InputError
        Missing values; `controls` or `replicates` that are missing or of wrong shape.
    TooLargeError
        If values do not fit into memory (the three of sva).

    Warns
    -----
    CountsWarning
        If the values look like counts: take logarithms first (as svaseq does).
    CovariateWarning
        If fewer variables are found than were asked for, or none: ``columns_`` is (n, 0).

    Notes
    -----
    sva holds all values and n² products in memory and reads the matrix twice a round: for
    hundreds to thousands of samples, not for cells. RUV reads products of samples, n²,
    from matrices of any kind, sparse and Dask included.

    The columns hold what is *not* explained by what you know. Give all that is of
    interest as covariates, else it is found as a hidden batch and removed; known batches
    are covariates and null both. Where the hidden batch goes with what is of interest, no
    method can tell them apart, and tests after sva are then too sure. Correct by
    `RemoveBatchEffect` with the columns as nuisance, or test with them as covariates.

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
        """Find the columns.

        Parameters
        ----------
        X
            Values on a log scale, samples × features.
        y
            Ignored.
        covariates
            All that is known: what is of interest, and known batches.
        null
            Those of them that are not of interest, known batches among them.
        controls
            Which features are known not to follow what is of interest: true or false, or
            for ``"supervised"`` the probability of it, (G,). ``"ruvs"`` and ``"ruvr"``
            take all features where it is None.
        replicates
            For ``"ruvs"``: a label of each sample, (n,), those of one label should not
            differ; missing: it tells nothing.

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
        """Find the columns of new samples, with all that was learned frozen.

        Parameters
        ----------
        X
            New samples × the features of `fit`.
        fast
            For sva: project all new samples together, which is quick; but then the
            columns of a sample depend on which others come with it. False: each sample
            on its own beside those of `fit`, O(n G) and n³ for each.

        Returns
        -------
        The columns, (m, k).

        Raises
        ------
        InputError
            With ``"two_step"``, which defines none, and ``"ruvr"``, which would need the
            covariates of new samples, and so what is to be predicted.
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
        """Find the columns, and give those of the same samples.

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

r"""ComBat-seq: batch effects removed from counts, and counts given back.

    y ~ NB(μ, φ_b),   log μ = log N + α + z β + γ_b + w η
    μ* = μ e^(-γ*_b - (w - w̄) η),   φ* = mean of the batches' φ,   y* = F*⁻¹(F(y))

with N the library size, z kept and w removed with batch: each count is mapped to the same
quantile of the distribution it would have without their effects. Zeros stay zeros and
counts stay integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from batchcorr.arrays.feature_counts import FeatureCounts
from batchcorr.estimators import count_checks, inputs
from batchcorr.estimators.count_model import fit_count_model
from batchcorr.estimators.count_shrinkage import Shrinkage
from batchcorr.estimators.fitted_counts import FittedCounts
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.estimators.progress import progress
from batchcorr.estimators.raw_counts import as_counts
from batchcorr.estimators.record import MethodRecord
from batchcorr.estimators.reference import reference_code

if TYPE_CHECKING:
    from batchcorr.models.namespace import Matrix

__all__ = ["ComBatSeq"]

ROUTED = {"batch": True, "covariates": True, "nuisance": True}


class ComBatSeq(FittedCounts):
    r"""Remove batch effects from counts by negative-binomial regression (ComBat-seq).

    .. math:: y \sim NB(μ, φ_b), \quad \log μ = \log N + α + zβ + γ_b + wη, \quad
        y^* = F_{μ e^{-γ^* - (w - \bar w)η}, φ^*}^{-1}(F_{μ, φ_b}(y))

    Parameters
    ----------
    shrink
        Shrink batch effects towards those of features with similar counts, in O(B G²
        n).
    shrink_dispersion
        With `shrink`: shrink the dispersions as well.
    gene_subset
        With `shrink`: use only this many randomly chosen other features; None: all.
    random_state
        Seed of this random choice.
    reference
        Reference batch: it stays unchanged, and the other batches are adjusted to it.
        ``"auto"``: the batch with the smallest dispersion (ComBat-ref). None: adjust
        all to their mean.
    cross
        Use each combination of labels of several batch columns as a batch.
    formula
        Formula over the columns of the covariates to keep; None: all columns, as main
        effects.
    batch_column, covariate_columns
        Columns of the DataFrame X with batch and covariates, which are then dropped
        from X; for callers that can pass X only.

    Attributes
    ----------
    model_ : CountModel
        The frozen fit: coefficients, dispersions φ, γ* and φ*, by feature.
    batches_ : tuple
        Labels of the batches.

    Raises
    ------
    DesignError
        Fewer than two batches, a batch with only one sample, confounded covariates, or
        missing labels.
    InputError
        Counts that are negative, fractional, missing or infinite; a sample without
        counts.

    Warns
    -----
    CappedWarning
        If corrected counts were limited to their upper bound.

    Notes
    -----
    Integer counts in, integer counts out, in the same dtype or, if corrected counts do
    not fit into it, in the next wider one; CSR stays CSR, and only one block of
    features at a time is dense (with `shrink`, all features of a batch). Features that
    have only zeros in some batch are returned unchanged and are not part of library
    sizes. Counts up to 1, and counts whose upper tail probability is under 1e-4, stay
    unchanged. No corrected count exceeds ten times the highest rate of its feature in
    `fit` (times the sample's library size): without this bound a 4 can become 1e11.

    Give the biological group as a covariate: otherwise its differences between batches
    are removed. Do not test corrected counts: they do not carry the uncertainty of the
    batch effects, so p-values are too small, the more so the less balanced the design
    is (docs/counts.md). Test the uncorrected counts with batch in the model. The fits
    run to convergence where R's edgeR stops early: up to 0.3 % of counts differ from
    R's.

    With a reference (ComBat-ref) each batch has one dispersion for all features, and
    corrected counts get the dispersion of the reference batch. Zeros may become counts,
    also in a sparse matrix. In the reference batch only nuisance effects are removed.

    Dispersions take 25 fits per feature and batch: seconds for 20,000 features × 200
    samples.

    References
    ----------
    Zhang, Parmigiani & Johnson (2020), NAR Genomics and Bioinformatics 2:lqaa078;
    R package sva, `ComBat_seq`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.negative_binomial(5, 0.1, size=(20, 100))
    >>> batch = np.repeat(["a", "b"], 10)
    >>> counts[batch == "b"] *= 3
    >>> corrected = ComBatSeq().fit_transform(counts, batch=batch)
    >>> corrected.dtype == counts.dtype
    True
    """

    record: ClassVar = MethodRecord(
        "combat_seq",
        scale="counts",
        takes=frozenset({"batch", "covariates", "nuisance"}),
    )

    __metadata_request__fit: ClassVar = ROUTED
    __metadata_request__transform: ClassVar = ROUTED

    def __init__(
        self,
        *,
        shrink: bool = False,
        shrink_dispersion: bool = False,
        gene_subset: int | None = None,
        random_state: int = 0,
        reference: object = None,
        cross: bool = False,
        formula: str | None = None,
        batch_column: str | None = None,
        covariate_columns: list[str] | None = None,
    ) -> None:
        self.shrink = shrink
        self.shrink_dispersion = shrink_dispersion
        self.gene_subset = gene_subset
        self.random_state = random_state
        self.reference = reference
        self.cross = cross
        self.formula = formula
        self.batch_column = batch_column
        self.covariate_columns = covariate_columns

    def fit(
        self,
        X: object,
        y: object = None,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
    ) -> Self:
        """Fit the regression and freeze the batch effects.

        Parameters
        ----------
        X
            Counts, samples × features: NumPy array, DataFrame, CSR or CSC matrix.
        y
            Ignored.
        batch
            Batch of each sample, at least two samples each.
        covariates
            Covariates to keep: a DataFrame, a Series or a 2-D array.
        nuisance
            Covariates to remove along with batch, such as RIN: of the same types.

        Returns
        -------
        The estimator itself.
        """
        self.fit_labels(X, Labels(batch, covariates, nuisance))
        return self

    def _fit_labels(self, X: object, labels: Labels, weights: object) -> Labels:
        count_checks.check_shrinkage(self)
        samples = self._samples_to_fit(X, labels.batch, labels.covariates)
        counts = as_counts(samples.features)
        if samples.batch is None:
            raise inputs.no_batch(type(self).__name__)
        labels = labels._replace(batch=samples.batch, covariates=samples.covariates)
        metadata, design = Metadata.fit_transform(
            counts.shape[0], labels, formula=self.formula
        )
        columns = count_checks.check_design(design, metadata)
        reference = self.reference
        if reference is not None and reference != "auto":
            reference = reference_code(reference, metadata)
        shrinkage = None
        if self.shrink:
            shrinkage = Shrinkage(
                self.shrink_dispersion, self.gene_subset, self.random_state
            )
        with progress("ComBat-seq", metadata.n_batches * counts.shape[1]) as advance:
            model = fit_count_model(
                FeatureCounts.of(counts),
                design,
                inputs.SampleNames(X, labels.batch, labels.covariates),
                advance,
                fitted=columns,
                shrinkage=shrinkage,
                reference=reference,
            )
        self._remember_features(samples, counts.shape[1])
        self._metadata, self.model_ = metadata, model
        return labels._replace(design=design)

    def transform(
        self,
        X: object,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
    ) -> Matrix:
        """Correct counts of batches that `fit` has seen, each sample by itself.

        Parameters
        ----------
        X
            Counts, samples × features, the features of `fit`.
        batch, covariates, nuisance
            As in `fit`; all are needed, because the expected count depends on them.

        Returns
        -------
        Corrected counts in the dtype and storage of X.
        """
        return self.apply(X, Labels(batch, covariates, nuisance))

    def fit_transform(
        self,
        X: object,
        y: object = None,
        *,
        batch: object = None,
        covariates: object = None,
        nuisance: object = None,
    ) -> Matrix:
        """Fit the regression and correct the same samples.

        Parameters
        ----------
        X, y, batch, covariates, nuisance
            As in `fit`.

        Returns
        -------
        Corrected counts in the dtype and storage of X.
        """
        labels = self.fit_labels(X, Labels(batch, covariates, nuisance))
        return self.apply(X, labels)

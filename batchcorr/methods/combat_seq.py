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
        Draw batch effects towards those of features with similar counts, in O(B G² n).
    shrink_dispersion
        With `shrink`: draw dispersions as well.
    gene_subset
        With `shrink`: look at this many random other features only; None: at all.
    random_state
        Seed of that choice.
    reference
        A batch that stays as it is and that the others are brought to, or ``"auto"``: the
        one of least dispersion (ComBat-ref). None: to the mean of all.
    cross
        Several batch factors: take their combinations as batches.
    formula
        Which columns of the covariates to keep and how; None: all of them.
    batch_column, covariate_columns
        Columns of a DataFrame X that hold batch and covariates, taken from it and
        dropped; for callers that pass X alone.

    Attributes
    ----------
    model_ : CountModel
        The frozen fit: coefficients, dispersions φ, γ* and φ*, by feature.
    batches_ : tuple
        Labels of the batches.

    Raises
    ------
    DesignError
        Fewer than two batches, a batch of one sample, confounded covariates, missing
        labels.
    InputError
        Counts that are negative, fractional, missing or infinite; a sample without any.

    Warns
    -----
    CappedWarning
        If corrected counts were held at their bound.

    Notes
    -----
    Integer counts in, integer counts out, of the same dtype or, where corrected counts do
    not fit, of the next wider one; CSR stays CSR, dense a block of features at a time
    (all those of a batch at once with `shrink`). Features
    with only zeros in some batch come back unchanged and count towards no library.
    Counts up to 1, and those whose upper tail is under 1e-4, stay as they are, and no
    count exceeds ten times the highest rate at which its feature was seen in `fit`
    (times the sample's library): without this bound a 4 can become 1e11.

    Give the biological group as a covariate: what is not given is removed as far as it
    differs between batches. Corrected counts carry no trace of how uncertain the batch
    effects were: a test of them is too sure, the more so the less balanced the design
    (docs/counts.md). Test the counts as they were, with batch in the model. The fits are
    solved fully where R's edgeR stops early: up to 0.3 % of counts differ from R's.

    With a reference (ComBat-ref) a batch has one dispersion for all features, and counts
    are given that of the reference. Zeros may become counts, also of a sparse matrix. From
    the samples of the reference nuisances are removed, and nothing else.

    Dispersions take 25 fits a feature and batch: 20,000 × 200 counts take seconds.

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
            What is to be kept: a DataFrame, a Series or a 2-D array.
        nuisance
            What is to be removed with batch, such as RIN: of the same kinds.

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
        """Map the counts of known batches, each sample on its own.

        Parameters
        ----------
        X
            Counts, samples × features, the features of `fit`.
        batch, covariates, nuisance
            As in `fit`; all are needed, as they are part of the expected count.

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
        """Fit, and correct the same samples.

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

"""What an evaluation knows of its samples, and the shares of variance of a layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from batchcorr._anndata.labels import check_batch_key, read_labels
from batchcorr.design.labels import BatchLabels
from batchcorr.errors import DesignError, InputError, MissingKeyError, did_you_mean
from batchcorr.estimators.checks import drop_redundant
from batchcorr.estimators.metadata import Metadata
from batchcorr.estimators.problem import Problem
from batchcorr.metrics._jackknife import GROUPS, interval, jackknife_groups
from batchcorr.metrics._variance_explained import shares_of
from batchcorr.tl._embedding_scores import Samples, Score

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

__all__ = ["MOST", "Study"]

MOST = 20_000
"""Samples that neighbours, clusters and the classifier are of, at most."""


@dataclass(frozen=True)
class Study:
    """Batch, covariates, labels and groups of the samples.

    Attributes
    ----------
    metadata, design
        Batch and covariates; the design's batches are batches.
    by_group
        The same with groups of the jackknife within batches: batch × `GROUPS` + group.
    samples
        Batch, label and group of each sample.
    rows
        The samples that neighbours are looked for among.
    """

    metadata: Metadata
    design: Design
    by_group: Design
    samples: Samples
    rows: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        adata: AnnData,
        batch_key: object,
        labels: object,
        covariates: object,
        random_state: int,
    ) -> Study:
        """Read what is known, and refuse what cannot be evaluated."""
        check_batch_key(batch_key)
        kind = None if labels is None else _kind(adata, labels)
        if covariates is None and labels is not None:  # numbers are labels here, too
            covariates = adata.obs[[labels]].astype("category")
        found = read_labels(adata, batch_key, covariates, None)
        metadata, design = Metadata.fit_transform(
            adata.n_obs, found.given, formula=found.formula
        )
        if metadata.n_batches < 2:
            msg = (
                f"There is only one batch, {metadata.levels[0]!r}, so there are no "
                "batch effects to score. Check that this is the right column."
            )
            raise DesignError(msg)
        random = np.random.default_rng(random_state)
        groups = jackknife_groups(design.codes, random)
        codes = (design.codes * GROUPS + groups).astype(np.int32)
        n = adata.n_obs
        rows = np.arange(n)
        if n > MOST:
            rows = np.sort(random.choice(n, MOST, replace=False))
        return cls(
            metadata,
            design,
            replace(design, codes=codes, n_batches=design.n_batches * GROUPS),
            Samples(design.codes, groups, kind, random_state),
            rows,
        )

    @property
    def sampled(self) -> Samples:
        """What is known of the samples that neighbours are looked for among."""
        return self.samples.take(self.rows)

    def whole(self, by_group: Moments, without: int | None = None) -> Moments:
        """Moments by batch, of all samples or without a group."""
        group = np.tile(np.arange(GROUPS), self.design.n_batches)
        batch = np.repeat(np.arange(self.design.n_batches), GROUPS)
        kept = np.flatnonzero(group != (-1 if without is None else without))
        part = by_group.map(lambda array: array[kept])
        return part.collapse(batch[kept].tolist(), self.design.n_batches)

    def variance(self, by_group: Moments) -> dict[str, Score]:
        """Shares of variance of batch and of each covariate, with their intervals."""
        whole = self.whole(by_group)
        drop_redundant(Problem.of_moments(whole, self.metadata))
        value = self._shares(whole)
        left_out = []
        for group in range(GROUPS):
            try:
                left_out.append(self._shares(self.whole(by_group, group)))
            except InputError:  # what is left does not tell them apart
                return {name: Score(share, chance=0.0) for name, share in value.items()}
        return {
            name: Score(share, *interval(share, [each[name] for each in left_out]), 0.0)
            for name, share in value.items()
        }

    def _shares(self, sums: Moments) -> dict[str, float]:
        """The shares of batch, and of each covariate within batches."""
        every = shares_of(sums).mean()
        found = {"batch_variance": every.batch}
        terms = self.metadata.terms
        if terms:
            found["batch_beyond_covariates"] = every.batch_beyond_covariates
        for term in dict.fromkeys(terms):
            own = [place for place, other in enumerate(terms) if other == term]
            alone = every
            if len(own) < len(terms):
                alone = shares_of(sums.select(own)).mean()
            found[f"variance[{term}]"] = alone.covariates
        return found


def _kind(adata: AnnData, labels: object) -> NDArray[np.int32]:
    """The labels as codes: (n,)."""
    if not isinstance(labels, str):
        msg = f"labels must be the name of one column of adata.obs, not {labels!r:.60}."
        raise InputError(msg)
    if labels not in adata.obs.columns:
        msg = (
            f"The labels {labels!r} are not a column of adata.obs. "
            f"{did_you_mean(labels, adata.obs.columns)}"
        )
        raise MissingKeyError(msg)
    found = BatchLabels.fit(adata.obs[labels], name=labels, n_rows=adata.n_obs)
    if len(found.levels) < 2 or len(found.levels) > adata.n_obs / 2:
        msg = (
            f"The labels {labels!r} have {len(found.levels)} values in {adata.n_obs} "
            "samples: labels must be groups of several samples each."
        )
        raise DesignError(msg)
    return found.codes(adata.obs[labels], n_rows=adata.n_obs)

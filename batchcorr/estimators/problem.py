"""What every fit starts from: a matrix, its design, and their moments, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from batchcorr.arrays import moments
from batchcorr.estimators.metadata import Labels, Metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """A matrix that was read once, and what is known of its rows.

    Attributes
    ----------
    metadata
        How labels are read.
    design
        Batch and columns of each row.
    moments
        Moments per batch and feature.
    """

    metadata: Metadata
    design: Design
    moments: Moments

    @classmethod
    def of(
        cls,
        x: Any,
        labels: Labels,
        metadata: Metadata | None = None,
        *,
        formula: str | None = None,
        weights: NDArray[Any] | None = None,
    ) -> Self:
        """Read labels and matrix.

        Parameters
        ----------
        x
            Matrix of n rows and G features, of a kind that the passes know.
        labels
            Of its rows.
        metadata
            How the labels are to be read; None: as is found from them.
        formula
            Which covariates to keep and how, where `metadata` is to be found.
        weights
            Of each row (n,) or value (n, G).

        Examples
        --------
        >>> import numpy as np
        >>> x = np.array([[1.0], [3.0], [10.0], [14.0]])
        >>> Problem.of(x, Labels(["a", "a", "b", "b"])).moments.mean.T
        array([[ 2., 12.]])
        """
        if metadata is None:
            metadata = Metadata.fit(x.shape[0], labels, formula=formula)
        design = metadata.design(x.shape[0], labels)
        return cls(metadata.settle(design), design, moments(x, design, weights=weights))

"""What every fit starts from: a matrix, its design, and their moments, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from batchcorr.arrays import moments
from batchcorr.design.column_products import ColumnProducts
from batchcorr.design.confounding import independent
from batchcorr.design.orthogonal import OrthogonalColumns, orthogonal_columns
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.models.linear_model import LinearFit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """A matrix that was read once, and what is known of its rows.

    Attributes
    ----------
    metadata
        How labels are read.
    read
        Moments per batch and feature, of the columns as they were read.
    products
        How the design columns vary, and which depend on others.
    design
        Batch and columns of each row, where rows were at hand.
    turned
        The columns as they were read, where those of the design would lose digits.
    """

    metadata: Metadata
    read: Moments
    products: ColumnProducts
    design: Design | None = None
    turned: OrthogonalColumns | None = None

    @classmethod
    def of(
        cls,
        x: Matrix,
        labels: Labels,
        metadata: Metadata | None = None,
        *,
        formula: str | None = None,
        weights: NDArray[np.generic] | None = None,
    ) -> Self:
        """Read labels and matrix.

        Parameters
        ----------
        x
            Matrix of n rows and G features, of a kind that the passes know.
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
            metadata, design = Metadata.fit_transform(
                x.shape[0], labels, formula=formula
            )
            return cls._whole(x, metadata, design, weights)
        design = labels.design or metadata.design(x.shape[0], labels)
        sums = moments(x, design)
        return cls(metadata, sums, ColumnProducts.of_moments(sums), design)

    @classmethod
    def of_moments(cls, sums: Moments, metadata: Metadata) -> Self:
        """Take moments that were gathered elsewhere."""
        return cls(metadata, sums, ColumnProducts.of_moments(sums))

    @classmethod
    def _whole(
        cls,
        x: object,
        metadata: Metadata,
        design: Design,
        weights: NDArray[np.generic] | None,
    ) -> Self:
        """Read a matrix all of whose rows are at hand, without loss of digits."""
        turned = products = None
        if not design.binary.all():
            products = ColumnProducts.of_design(design)
            free = independent(products, metadata.kept)
            if free is not None and products.is_ill(free):
                turned = orthogonal_columns(design, free)
        sums = moments(x, turned.design if turned else design, weights=weights)
        if products is None or (sums.by_feature and turned is None):
            products = ColumnProducts.of_moments(sums)
        return cls(metadata, sums, products, design, turned)

    @property
    def moments(self) -> Moments:
        """Moments per batch and feature, of the columns of the design."""
        if self.turned is None:
            return self.read
        return self.read.in_columns(self.turned.factor, self.turned.offset)

    @property
    def design_as_read(self) -> Design | None:
        """The design whose columns the matrix was read with."""
        return self.turned.design if self.turned else self.design

    @property
    def products_of_rows(self) -> ColumnProducts | None:
        """How the columns vary over all rows, whatever features miss; None: not at hand.

        What depends on others there does so for every feature.
        """
        return None if self.design is None else ColumnProducts.of_design(self.design)

    def contrasts_as_read(
        self, contrasts: NDArray[np.float64], columns: list[int]
    ) -> NDArray[np.float64]:
        """The weights of the columns as read that are c β of those declared: (k, q).

        Parameters
        ----------
        contrasts
            c, of all columns: (k, p).

        Notes
        -----
        z = z' F + o gives β' = F β, so that c β = (c F⁻¹) β'.
        """
        if self.turned is None:
            return contrasts[:, columns]
        factor = self.turned.factor[np.ix_(columns, columns)]
        size = np.abs(factor).max(axis=0)  # units of the columns
        weights: NDArray[np.float64] = np.linalg.solve(
            (factor / size).T, (contrasts[:, columns] / size).T
        ).T
        return weights

    def fit(self, columns: list[int]) -> LinearFit:
        """Fit the linear model to some of the columns, which do not depend on others."""
        fit = LinearFit.of(self.read.select(columns))
        if self.turned is None:
            return fit
        factor = self.turned.factor[np.ix_(columns, columns)]
        return fit.in_columns(factor, self.turned.offset[:, columns])

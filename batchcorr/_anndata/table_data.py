"""A table of text in memory, as far as corrections read and write an AnnData.

anndata takes longer to import than a small table to correct; a table has no need of it
until it is written as .h5ad or .zarr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["TableData"]


@dataclass
class TableData:
    """Samples × features, with the attributes of an AnnData.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> data = TableData(
    ...     np.eye(2), pd.DataFrame(index=["a", "b"]), pd.DataFrame(index=["g", "h"])
    ... )
    >>> data.n_obs, list(data[np.array([True, False])].obs_names)
    (2, ['a'])
    """

    X: NDArray[Any]
    obs: pd.DataFrame
    var: pd.DataFrame
    uns: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    obsm: dict[str, Any] = field(default_factory=dict)
    varm: dict[str, Any] = field(default_factory=dict)
    obsp: dict[str, Any] = field(default_factory=dict)
    varp: dict[str, Any] = field(default_factory=dict)
    raw: None = None
    is_view: bool = False
    isbacked: bool = False

    @property
    def obs_names(self) -> pd.Index[str]:
        """Names of the samples."""
        return self.obs.index

    @property
    def var_names(self) -> pd.Index[str]:
        """Names of the features."""
        return self.var.index

    @property
    def n_obs(self) -> int:
        """Number of samples."""
        return len(self.obs)

    @property
    def n_vars(self) -> int:
        """Number of features."""
        return len(self.var)

    def __getitem__(self, rows: NDArray[Any]) -> Self:
        """A table of some of the samples, before layers are added to it."""
        return type(self)(self.X[rows], self.obs[rows], self.var, dict(self.uns))

    def copy(self) -> Self:
        """A table of its own."""
        x, obs, var = self.X.copy(), self.obs.copy(), self.var.copy()
        return type(self)(x, obs, var, dict(self.uns))

    def to_anndata(self) -> AnnData:
        """The same as an AnnData."""
        import anndata

        return anndata.AnnData(
            self.X, self.obs, self.var, uns=self.uns, layers=self.layers
        )

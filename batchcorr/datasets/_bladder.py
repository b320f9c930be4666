"""Real arrays that come with the package: bladder cancer, processed in five batches.

The file lies in `data/` of a source checkout and in `batchcorr/_data/` of an installed
wheel; the README beside it says where the values are from and under which licence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from batchcorr.errors import FileError

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["bladder"]


def bladder() -> AnnData:
    """Load 57 bladder-cancer arrays that were processed in five batches.

    A standard example of batch-effect correction: batches are days of processing, and
    are associated with `cancer`. Batches 1 and 3 have only one kind of tissue each: a
    correction that does not keep `cancer` removes part of its effect.

    Returns
    -------
    AnnData
        57 samples x 22283 probes in float64, read anew on every call:

        `X`
            log2 expression (Affymetrix HG-U133A, normalized with RMA), as in the R
            package bladderbatch.
        `obs["batch"]`
            Day of processing, ``"1"`` to ``"5"``.
        `obs["cancer"]`
            ``"Biopsy"``, ``"Cancer"`` or ``"Normal"``.
        `obs["outcome"]`
            ``"Biopsy"``, ``"Normal"``, and the tumours by kind: ``"mTCC"``,
            ``"sTCC+CIS"``, ``"sTCC-CIS"``.
        `uns`
            Title, source, licence and citation.

    Raises
    ------
    FileError
        If the installation is incomplete.

    References
    ----------
    .. [1] L. Dyrskjøt et al. (2004). Gene expression in the urinary bladder: a common
       carcinoma in situ gene expression signature exists disregarding histopathological
       classification. Cancer Research 64, 4040-4048.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> adata.shape
    (57, 22283)
    >>> adata.obs["batch"].value_counts(sort=False).to_dict()
    {'1': 11, '2': 18, '3': 4, '4': 5, '5': 19}
    """
    path = _find("bladderbatch.h5ad")
    import anndata

    return anndata.read_h5ad(path)


def _find(name: str) -> Path:
    """Return where a file of the package's data lies: in a wheel, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    places = [package / "_data" / name, package.parent / "data" / name]
    for path in places:
        if path.is_file():
            return path
    looked = " or ".join(str(path) for path in places)
    msg = (
        f"The data file {name!r} is missing (looked for at {looked}). It comes with "
        "the package: reinstall batchcorr, or restore the file in your checkout."
    )
    raise FileError(msg)

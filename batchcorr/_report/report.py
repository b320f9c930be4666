"""The report page: `batchcorr.report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata

from batchcorr._anndata import matrices
from batchcorr._anndata.labels import UNKNOWN
from batchcorr._anndata.missing import with_level
from batchcorr._files.atomic import replacing
from batchcorr._report.gather import gather
from batchcorr._report.matrices import compared
from batchcorr._report.page import page
from batchcorr._report.question import Question
from batchcorr.errors import InputError, did_you_mean
from batchcorr.estimators.contrasts import read_pair
from batchcorr.estimators.metadata import Labels

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from anndata import AnnData

    from batchcorr.estimators.base import Corrector

__all__ = ["page_of", "report"]


def report(
    adata: AnnData,
    path: str | os.PathLike[str],
    batch_key: str | None = None,
    *,
    covariates: object = None,
    test: object = None,
    labels: str | None = None,
    layer: str | None = None,
    corrected: str | None = None,
    title: str | None = None,
    min_count: float | None = None,
) -> Path:
    """Write an HTML report of design, correction, evaluation and test.

    Which values were corrected, and how, is read from the records in `adata`: after a
    correction ``bc.report(adata, "report.html")`` is enough. For uncorrected data the
    page shows what the design allows.

    Parameters
    ----------
    adata
        Samples × features, corrected or not; it is not changed.
    path
        File to write, ``.html``; replaced if it exists.
    batch_key
        Column of `obs` with the batch; None: that of the correction.
    covariates
        Covariates to keep: columns of `obs`, a formula, or a DataFrame; None: those
        that the correction kept.
    test
        What is tested, as in `tl.differential`: a column of `obs`, or
        ``(column, level, reference)``. Uncorrected values are tested, with batch in the
        model.
    labels
        Column of `obs` with groups that should stay separate, such as cell types.
    layer
        Layer with the uncorrected values; None: the one named in the record of the
        correction, or another layer that has them.
    corrected
        Layer or key of `obsm` with the corrected values, or ``"X"``; None: the one with
        a record of a correction.
    title
        Heading of the page.
    min_count
        Minimum count of features to be tested, as in `tl.differential`.

    Returns
    -------
    The path of the page.

    Raises
    ------
    MissingKeyError
        If a column, layer or embedding does not exist.
    InputError
        If no record names the batch column, or there are several corrections and
        `corrected` is not given.
    FileError
        If the file cannot be written; no partial file is left.

    Notes
    -----
    The page is a single file that loads nothing from the network and runs no other
    script. Figures show two principal components of the 2,000 most variable features
    (of counts, after logarithms). The page contains sample names and labels: check this
    before you share it. The matrix is read about fifty times.

    Examples
    --------
    >>> import tempfile, warnings, batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :200].copy()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with warnings.catch_warnings(action="ignore"):  # cancer differs by batch
    ...         bc.pp.combat(adata, "batch", covariates="cancer", key_added="corrected")
    ...         written = bc.report(adata, f"{folder}/report.html", test="cancer")
    ...     written.name, written.stat().st_size < 500_000
    ('report.html', True)
    """
    given: dict[str, Any] = {"covariates": covariates, "test": test, "labels": labels}
    given |= {"layer": layer, "corrected": corrected, "title": title}
    given["min_count"] = min_count
    text = page_of(adata, batch_key, **given)
    with replacing(path) as part:
        part.write_bytes(text.encode("utf-8"))
    return Path(path)


def page_of(
    adata: AnnData,
    batch_key: str | None,
    *,
    covariates: Any,
    test: Any,
    labels: str | None,
    layer: str | None,
    corrected: str | None,
    title: str | None,
    min_count: float | None,
    normalizations: Sequence[Corrector] = (),
    words: Callable[[str], str] = str,
) -> str:
    """The page as HTML; see `report`.

    `normalizations` are for the uncorrected values, see `matrices.compared`; `words`
    turns calls of Python into other words.
    """
    matrices.require_adata(adata)
    which = layer, corrected, normalizations
    found = compared(adata, *which)
    known = _with_level(adata, (found.correction or {}).get("missing") or {})
    if known is not adata:
        adata, found = known, compared(known, *which)
    columns = _columns(adata, found.correction or {}, batch_key, covariates)
    if isinstance(test, str):
        test = read_pair(test, adata.obs)
    question = Question(*columns, test, labels, title or "Batch report", min_count)
    return page(gather(adata, question, found), words)


def _with_level(adata: AnnData, counts: dict[str, int]) -> AnnData:
    """The data with missing labels as the level that a correction took them for."""
    names = [name for name in counts if name in adata.obs]
    if not names:
        return adata
    filled = with_level(Labels(None, adata.obs[names]))[0].covariates
    return anndata.AnnData(
        adata.X,
        obs=adata.obs.assign(**{name: filled[name] for name in names}),
        var=adata.var,
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        layers=dict(adata.layers),
    )


def _columns(
    adata: AnnData, record: dict[str, Any], batch: object, covariates: object
) -> tuple[list[str], list[str], Any]:
    """Batches, what else was removed, and covariates: as given, else as recorded."""
    recorded: Any = record.get("batch")
    keys: list[Any] = recorded if isinstance(recorded, list) else [recorded]
    batch = keys[0] if batch is None else batch
    if not isinstance(batch, str):
        known = did_you_mean("", adata.obs.columns)
        other = "" if batch is None else f", not {batch!r:.60}"
        msg = (
            f"batch_key must name the column of adata.obs that holds the batch{other}: a "
            f"report is of a batch, and no record of a correction tells it. {known} "
            f"{UNKNOWN}"
        )
        raise InputError(msg)
    batches, nuisance = [batch], []
    if batch in keys:
        batches += [each for each in keys if each != batch]
        nuisance = [
            name
            for name in record.get("nuisance") or []
            if name in adata.obs or name in adata.obsm
        ]
        covariates = record.get("covariates") if covariates is None else covariates
    if isinstance(covariates, str) and not covariates.lstrip().startswith("~"):
        covariates = [covariates]
    if isinstance(covariates, list | tuple):
        covariates = list(covariates) or None
    return batches, nuisance, covariates

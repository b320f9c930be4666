"""Samples in two dimensions, before and after, by batch and by covariate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._anndata import matrices
from batchcorr._anndata.columns import column_of
from batchcorr.errors import InputError, MissingKeyError, did_you_mean
from batchcorr.pl._looks import FEW_POINTS, MISSING, Groups, inches, shortened
from batchcorr.pl._panels import panels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from batchcorr.pl._panels import AxesGrid

__all__ = ["embedding"]

SIZE, LEGEND = (2.7, 2.5), 2.1
"""Inches of a panel, and height of its legend."""


def embedding(
    adata: AnnData,
    basis: str | Sequence[str],
    color: str | Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    components: tuple[int, int] = (1, 2),
    size: float | None = None,
    ax: object = None,
) -> AxesGrid:
    """Draw samples in two dimensions: one column per basis, one row per colouring.

    Batches should be separate before a correction and mixed after it; biological groups
    should stay separate.

    Parameters
    ----------
    adata
        AnnData with coordinates in `obsm`.
    basis
        Keys of `obsm`, such as ``["pca_before", "pca_after"]``; ``"pca"`` also finds
        ``"X_pca"``.
    color
        Columns of `obs`, such as ``["batch", "cell_type"]``. Numbers get a colour
        scale; all else, and integers with up to 12 values, get one colour per group.
    titles
        One title per basis; None: the names of the bases.
    components
        The two coordinates to draw, counted from 1.
    size
        Size of a point, in square points; None: chosen by the number of samples.
    ax
        Axes to draw on, one per panel; None: a new figure.

    Returns
    -------
    The axes, bases in columns and colours in rows.

    Raises
    ------
    MissingKeyError
        If a basis or a column does not exist.
    InputError
        If a basis has too few coordinates, or `ax` does not have one axes per panel.

    Notes
    -----
    Samples are drawn in random order, the same in all panels, so that no group covers
    the others, and as one image, so that figures of 100,000 samples are small files.
    More than 7 groups differ by shade, and up to 2,000 samples also by shape. Each
    panel has its own axis limits, because components before and after are different.
    Distances in a UMAP mean little; look at principal components first.

    Examples
    --------
    >>> import warnings, scanpy as sc, batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> sc.pp.pca(adata, n_comps=2, key_added="before")
    >>> with warnings.catch_warnings(action="ignore"):  # cancer differs by batch
    ...     bc.tl.pca(adata, "batch", covariates="cancer", n_comps=2, key_added="after")
    >>> axes = bc.pl.embedding(adata, ["before", "after"], ["batch", "cancer"])
    >>> axes.shape
    (2, 2)
    """
    adata = matrices.require_adata(adata)
    bases = [basis] if isinstance(basis, str) else list(basis)
    columns = [color] if isinstance(color, str) else list(color)
    names = bases if titles is None else list(titles)
    if size is not None and not (isinstance(size, int | float) and size > 0):
        msg = f"size must be a positive number (in square points), not {size!r:.40}."
        raise InputError(msg)
    if not bases or not columns or len(names) != len(bases):
        msg = (
            "embedding needs at least one basis and one color, and no titles or one "
            f"per basis: it got {len(bases)} bases, {len(columns)} colors and "
            f"{len(names)} titles."
        )
        raise InputError(msg)
    keys = [_key_of(adata, key) for key in bases]
    points = [_points(adata, key, components) for key in keys]
    values = [column_of(adata, key, "color") for key in columns]
    groups = [Groups.of(column) for column in values]
    grid = panels(ax, (len(columns), len(keys)), SIZE, beside=_beside(groups))
    order = np.random.default_rng(0).permutation(adata.n_obs)
    if size is None:
        width = min(1.0, inches(grid[0, 0])[0] / 2)
        size = float(np.clip(1300 * max(adata.n_obs, 1) ** -0.69, 0.5, 30)) * width
    for row, column, group, key in zip(grid, values, groups, columns, strict=True):
        for panel, where in zip(row, points, strict=True):
            if group is None:
                _draw_numbers(panel, where[order], column.iloc[order], size)
            else:
                shuffled = Groups(group.names, group.codes[order])
                _draw_groups(panel, where[order], shuffled, size)
        if group is None:
            _add_scale(row[-1], key)
        else:
            few = adata.n_obs <= FEW_POINTS
            room = (_beside([group]), LEGEND) if ax is None else None
            group.name_beside(row[-1], key, shapes=few, room=room)
    for k, (key, name) in enumerate(zip(keys, names, strict=True)):
        grid[0, k].set_title(shortened(name, 40))
        for panel in grid[:, k]:
            _name_axes(panel, adata, key, components)
    return grid


def _key_of(adata: AnnData, key: object) -> str:
    """The key of `obsm` that is meant, as scanpy would find it."""
    for name in (key, f"X_{key}"):
        if name in adata.obsm:
            return str(name)
    msg = (
        f"The basis {key!r:.80} is not in adata.obsm. {did_you_mean(key, adata.obsm)} "
        "Compute coordinates with batchcorr.tl.pca, scanpy.pp.pca or scanpy.tl.umap."
    )
    raise MissingKeyError(msg)


def _points(
    adata: AnnData, key: str, components: tuple[int, int]
) -> NDArray[np.float64]:
    """Two coordinates of all samples: (n, 2)."""
    given = adata.obsm[key]
    whole = np.asarray(given.toarray() if hasattr(given, "toarray") else given)
    if whole.ndim != 2 or whole.dtype.kind not in "fiub":
        msg = (
            f"adata.obsm[{key!r}] is not a matrix of coordinates: it must contain "
            "numbers, one row per sample."
        )
        raise InputError(msg)
    possible = range(1, whole.shape[1] + 1)
    if len(components) != 2 or not all(k in possible for k in components):
        msg = (
            f"components={components!r}: must be two numbers from 1 to "
            f"{whole.shape[1]}, the number of coordinates of {key!r}."
        )
        raise InputError(msg)
    return whole[:, [int(k) - 1 for k in components]].astype(np.float64)


def _beside(groups: Sequence[Groups | None]) -> float:
    """Inches that the widest legend takes, or a scale of colours."""
    return max(0.7 if group is None else group.legend_width(LEGEND) for group in groups)


def _draw_groups(
    ax: Axes, points: NDArray[np.float64], groups: Groups, size: float
) -> None:
    """Draw all samples in their order; few of them in the shapes of their groups."""
    colour = groups.by_sample()
    shapes = np.array([*groups.shapes, "o"])[groups.codes]
    if len(points) > FEW_POINTS:
        shapes[:] = "o"
    for shape in np.unique(shapes):
        rows = shapes == shape
        _draw_points(ax, points[rows], size, colour[rows], str(shape))


def _draw_numbers(
    ax: Axes, points: NDArray[np.float64], values: pd.Series, size: float
) -> None:
    """Draw samples by a number; grey, and first, where it is missing."""
    number = values.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(number)
    _draw_points(ax, points[~known], size, MISSING)
    _draw_points(ax, points[known], size, number[known])


def _draw_points(
    ax: Axes, points: NDArray[np.float64], size: float, colour: Any, shape: str = "o"
) -> None:
    x, y = points.T
    scale = None if isinstance(colour, str) or colour.ndim > 1 else "viridis"
    ax.scatter(
        x, y, size, colour, marker=shape, cmap=scale, linewidths=0, rasterized=True
    )


def _add_scale(ax: Axes, title: str) -> None:
    """Say right of the axes which colour is which number."""
    beside = ax.inset_axes((1.05, 0.05, 0.06, 0.8))
    bar = ax.figure.colorbar(ax.collections[-1], cax=beside)
    beside.set_title(shortened(title), fontsize="small", loc="left")
    beside.tick_params(labelsize="small")
    bar.outline.set_visible(False)


def _name_axes(ax: Axes, adata: AnnData, key: str, components: tuple[int, int]) -> None:
    """Name the coordinates, and the share of variance where it is known."""
    about = adata.uns.get(key, adata.uns.get(key.removeprefix("X_"), {}))
    ratio = about.get("variance_ratio") if hasattr(about, "get") else None
    word = "PC" if ratio is not None or "pca" in key.lower() else "coordinate"
    word = "UMAP" if "umap" in key.lower() else word
    for name, component in zip("xy", components, strict=True):
        label = f"{word} {component}"
        if ratio is not None and len(ratio) >= component:
            label += f" ({ratio[component - 1]:.0%})"
        ax.set(**{f"{name}ticks": []})
        getattr(ax, f"set_{name}label")(label, fontsize="small")
    ax.margins(0.06)

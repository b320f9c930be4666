"""A table of tests in the layout of scanpy's `rank_genes_groups`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_ranked"]


def as_ranked(
    table: pd.DataFrame, groups: list[str], about: dict[str, Any]
) -> dict[str, Any]:
    """The table in the layout of `rank_genes_groups`: a field a contrast, by falling t.

    Parameters
    ----------
    table
        One test a feature, or one a contrast and feature.
    groups
        The names of the contrasts, in the order of the table.
    about
        What the test was, by name; what is None is left out.
    """
    alone = "t" in table
    names = map(str, table.columns)
    suffixes = [""] if alone else [n[1:] for n in names if n.startswith("t[")]
    fields = {
        "names": None,
        "scores": "t",
        "logfoldchanges": "log2_fold_change",
        "pvals": "p_value",
        "pvals_adj": "p_adjusted",
    }
    ranked: dict[str, list[Any]] = {field: [] for field in fields}
    for suffix in suffixes:
        order = np.argsort(-table[f"t{suffix}"].to_numpy(), kind="stable")
        for field, name in fields.items():
            if name is None:
                values = table.index.to_numpy()[order].astype(str)
            elif f"{name}{suffix}" in table:
                values = table[f"{name}{suffix}"].to_numpy()[order]
            else:  # the base of the logarithms is not known
                values = np.full(len(order), np.nan)
            ranked[field].append(values)
    params = {key: value for key, value in about.items() if value is not None}
    params |= {"method": "batchcorr.tl.differential", "use_raw": False}
    params |= {"corr_method": "benjamini-hochberg"}
    arrays = {
        field: np.rec.fromarrays(
            values, [(group, v.dtype) for group, v in zip(groups, values, strict=True)]
        )
        for field, values in ranked.items()
    }
    return {"params": params, **arrays}

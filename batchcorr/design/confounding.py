r"""Which columns the batches, or each other, leave undetermined; and how closely.

A combination of columns is confounded with batch exactly when it does not vary inside
any batch. With W = Σ_b S_b the columns' squares within batches and T their squares in
all, columns are taken one by one, nuisances first; one whose squares in W, after those
before it are swept out, fall under 1e-9 of its squares in T cannot be told apart. Where
the columns themselves are at hand, and not only their products, that is 1e-14: as R's lm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.design.column_products import TOLERANCE, ColumnProducts
from batchcorr.design.findings import Finding
from batchcorr.errors import DesignError, some

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = [
    "associations",
    "check_estimable",
    "independent",
    "redundant_nuisances",
    "unestimable",
]

LISTED = 5


def _dependent(
    products: ColumnProducts, order: Sequence[int]
) -> tuple[list[int], dict[int, list[int]]]:
    """Sweep columns in order; return the independent, and for each other its partners.

    A column's partners are the earlier columns that, with the batches, explain it.
    """
    size = np.diag(products.total)
    free: list[int] = []
    partners: dict[int, list[int]] = {}
    for column in order:
        if size[column] <= 0:
            partners[column] = []
            continue
        scaled = products.root[:, free] / np.sqrt(size[free])
        mine = products.root[:, column]
        weights = np.linalg.lstsq(scaled, mine)[0]
        left = np.sum((mine - scaled @ weights) ** 2)
        if left > products.tolerance * size[column]:
            free.append(column)
        else:
            relative = np.abs(weights) / np.sqrt(size[column])
            partners[column] = [
                k for k, w in zip(free, relative, strict=True) if w > 1e-6
            ]
    return free, partners


def redundant_nuisances(products: ColumnProducts, kept: int) -> list[int]:
    """Return the nuisance columns that batch and earlier nuisances already explain."""
    order = range(kept, len(products.total))
    return sorted(_dependent(products, order)[1])


def independent(products: ColumnProducts, kept: int) -> list[int] | None:
    """Return the columns to fit, or None where a kept one depends on others."""
    free, partners = _dependent(products, _order(products, kept))
    return None if any(column < kept for column in partners) else sorted(free)


def _order(products: ColumnProducts, kept: int) -> list[int]:
    """Nuisances first: kept columns must stand beside all of them."""
    return [*range(kept, len(products.total)), *range(kept)]


def check_estimable(
    products: ColumnProducts, names: Sequence[str], terms: Sequence[str], kept: int
) -> None:
    """Refuse protected columns that batch, nuisances or each other determine.

    Parameters
    ----------
    products, names, terms, kept
        As in `unestimable`.
    """
    finding = unestimable(products, names, terms, kept)
    if finding is not None:
        raise DesignError(finding.text)


def unestimable(
    products: ColumnProducts, names: Sequence[str], terms: Sequence[str], kept: int
) -> Finding | None:
    """The finding that protected columns are determined by others, None if none is.

    Parameters
    ----------
    names, terms
        Name of every column, and of the covariate it belongs to.
    """
    _, partners = _dependent(products, _order(products, kept))
    guilty = [column for column in partners if column < kept]
    if not guilty:
        return None
    column = guilty[0]
    involved = sorted({terms[k] for k in [column, *partners[column]]})
    if _repeat_each_other(products, column, partners[column]):
        return Finding(
            "blocks",
            "repeated",
            f"The covariates {_listed(involved)} repeat each other: {names[column]!r} is "
            "a combination of the others.",
            "Keep one of them.",
        )
    blamed = sorted({terms[k] for k in guilty})
    also = sorted(set(involved) - set(blamed))
    joint = f" together with {_listed(also)}" if also else ""
    vary = "do not vary" if len(guilty) > 1 else "does not vary"
    verb = "are" if len(blamed) > 1 else "is"
    return Finding(
        "blocks",
        "confounded",
        f"{_listed(blamed)} {verb} confounded with batch{joint}: "
        f"{_listed([names[k] for k in guilty])} {vary} within any batch beyond what "
        "the other columns explain, so its effect cannot be separated from the batch "
        "effect.",
        "Measure several of its values in one batch, or drop batches that have only "
        "one of them; if it is left out of a correction, its effect is removed "
        "wherever it differs between batches.",
    )


def _repeat_each_other(
    products: ColumnProducts, column: int, others: list[int]
) -> bool:
    """Whether the columns are dependent even before batches are taken into account."""
    if not others:
        return False
    known = products.total[np.ix_(others, others)]
    right = products.total[others, column]
    left = products.total[column, column] - right @ np.linalg.lstsq(known, right)[0]
    return bool(left <= TOLERANCE * products.total[column, column])


def _listed(names: Sequence[str]) -> str:
    quoted = [repr(name) for name in names]
    if len(quoted) > LISTED:
        return some(quoted, LISTED)
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def associations(products: ColumnProducts, terms: Sequence[str]) -> dict[str, float]:
    """How strongly batch predicts each covariate: 0 not at all, 1 wholly.

    The largest canonical correlation between batch and the covariate's columns, its
    square adjusted for the number of batches as an adjusted R². For two groups in two
    batches it is the phi coefficient.
    """
    if products.n_batches < 2:
        return dict.fromkeys(terms, 0.0)
    total, within = products.total, products.within
    spare = products.n - products.n_batches
    strengths = {}
    for term in dict.fromkeys(terms):
        columns = [k for k, other in enumerate(terms) if other == term]
        pick = np.ix_(columns, columns)
        values = np.linalg.eigvals(np.linalg.lstsq(total[pick], within[pick])[0])
        squared = 1 - min(float(np.min(values.real)), 1.0)
        if spare > 0:
            squared = 1 - (1 - squared) * (products.n - 1) / spare
        strengths[term] = float(np.sqrt(np.clip(squared, 0.0, 1.0)))
    return strengths

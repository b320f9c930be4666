"""Labels of samples as levels and codes: `level[code[i]]` is the label of row i.

Batches and categorical covariates are both kept this way. The levels are plain
Python values, so that they can be compared across data types and written as JSON:
a batch called `1` in one file and `"1"` in the next is the same batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchcorr.design.distinct import declared, distinct
from batchcorr.design.levels import Level, levels_of, matched, one_each
from batchcorr.errors import DesignError, InputError, UnknownBatchError, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    import numpy.typing as npt

__all__ = ["BatchLabels", "Level"]


@dataclass(frozen=True)
class BatchLabels:
    """The distinct labels of one column, in the order of their codes.

    Examples
    --------
    >>> labels = BatchLabels.fit(["b", "a", "b"])
    >>> labels.levels
    ('a', 'b')
    >>> labels.codes(["a", "b"])
    array([0, 1], dtype=int32)
    """

    levels: tuple[Level, ...]
    name: str = "batch"

    @classmethod
    def fit(
        cls,
        labels: object,
        *,
        name: str = "batch",
        levels: Iterable[object] | None = None,
        n_rows: int | None = None,
    ) -> BatchLabels:
        """The levels of some labels: see `factorize`, which also gives their codes.

        Parameters
        ----------
        labels, name, levels, n_rows
            As in `factorize`.
        """
        return cls.factorize(labels, name=name, levels=levels, n_rows=n_rows)[0]

    @classmethod
    def factorize(
        cls,
        labels: object,
        *,
        name: str = "batch",
        levels: Iterable[object] | None = None,
        n_rows: int | None = None,
    ) -> tuple[BatchLabels, npt.NDArray[np.int32]]:
        """The levels of some labels, and the code of each label.

        Categories keep their order, and those that do not occur are dropped. Other
        labels are sorted: numbers by value, strings by text, a mixture by the name
        of the type and then by text. Texts that pandas reads as missing in a file
        ("NA", "N/A", "nan", "null", …) are missing; 1, 1.0 and "1" are one label.

        Parameters
        ----------
        labels
            One label per row: a Series or Categorical of any type, an array, a list.
        levels
            The levels, declared instead of found; they need not all occur.

        Raises
        ------
        DesignError
            If labels are missing, lie outside the declared levels, or may be one
            written in two ways ("a" and "a ", true and 1).
        InputError
            If these are not one label per row.

        Examples
        --------
        >>> labels, codes = BatchLabels.factorize([10, 9, 10])
        >>> labels.levels, codes
        ((9, 10), array([1, 0, 1], dtype=int32))
        >>> BatchLabels.factorize(["b"], levels=["a", "b"])[1]
        array([1], dtype=int32)
        """
        if levels is None:
            codes, values, ordered = distinct(labels, name, n_rows)
            found, table = levels_of(values, name, ordered=ordered)
            return cls(found, name), table[codes]
        known = declared(levels, name)
        if len(one_each(list(known), f"levels of {name}")) < len(known):
            msg = (
                f"The levels of {name} contain the same label in two forms, such as 1 "
                f"and '1': {some(map(repr, known), 20)}. Give each label once."
            )
            raise InputError(msg)
        codes, values, _ = distinct(labels, name, n_rows, known)
        table, unseen = matched(values, known)
        if unseen:
            msg = (
                f"{name} has labels that are not among the declared levels: "
                f"{some(map(repr, unseen))}. Declared: {some(map(repr, known), 20)}. "
                "Declare every label that will occur."
            )
            raise DesignError(msg)
        return cls(known, name), table[codes]

    def codes(
        self,
        labels: object,
        *,
        n_rows: int | None = None,
        unknown: type[DesignError] = UnknownBatchError,
    ) -> npt.NDArray[np.int32]:
        """Return the code of each label: its position among the levels.

        A label is matched exactly, and else as text where this is unambiguous: `1`,
        `1.0` and `"1"` are the same batch unless two of them are levels.

        Parameters
        ----------
        unknown
            The error for a label that is not among the levels.

        Raises
        ------
        UnknownBatchError
            If a label is not among the levels (or the error given as `unknown`).

        Examples
        --------
        >>> BatchLabels((1, 2)).codes(["2", "1"])
        array([1, 0], dtype=int32)
        """
        codes, values, _ = distinct(labels, self.name, n_rows, self.levels)
        table, unseen = matched(values, self.levels)
        if not unseen:
            return table[codes]
        msg = (
            f"{self.name} has labels that fit has not seen: {some(map(repr, unseen))}. "
            f"Known labels: {some(map(repr, self.levels), 20)}. "
        )
        if issubclass(unknown, UnknownBatchError):
            msg += (
                "Fit again with these samples, or estimate the new batches against the "
                "frozen model with `est.add_batches(X, batch=…)`."
            )
        else:
            msg += "Fit again with samples of every level, or leave these samples out."
        raise unknown(msg)

    def to_json(self) -> dict[str, object]:
        """Return plain values that `from_json` reads.

        Examples
        --------
        >>> BatchLabels(("a", "b")).to_json()
        {'name': 'batch', 'levels': ['a', 'b']}
        """
        return {"name": self.name, "levels": list(self.levels)}

    @classmethod
    def from_json(cls, saved: Mapping[str, object]) -> BatchLabels:
        """Read what `to_json` wrote, and check it.

        Examples
        --------
        >>> BatchLabels.from_json({"name": "batch", "levels": ["a", 2]}).levels
        ('a', 2)
        """
        name, levels = saved.get("name"), saved.get("levels")
        plain = (str, int, float, bool)
        if not isinstance(name, str) or not isinstance(levels, list):
            msg = f"Saved labels need a name and a list of levels, not {saved!r}."
            raise InputError(msg)
        if not all(isinstance(level, plain) for level in levels):
            msg = f"Saved levels of {name} must be text, numbers or true and false."
            raise InputError(msg)
        return cls(declared(levels, name), name)

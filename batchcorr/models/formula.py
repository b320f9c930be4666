"""Formulas such as ``~ sex + poly(age, 2)``: read by a small grammar, then encoded.

Formulaic runs what stands in a formula as Python. So a formula is parsed here first,
node by node against all that is allowed, and written anew with names of our own for its
columns (``v0``, ``v1``, …): no text of a user or of a file ever reaches formulaic.

The model has an intercept for every batch. Columns are therefore always built beside an
intercept, so that labels have a reference level, and the intercept is left out of the
result; ``0``, ``1`` and ``- 1`` in a formula change nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from math import isfinite, prod
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchcorr.errors import DesignError, InputError

if TYPE_CHECKING:
    from batchcorr.models.labels import Level

__all__ = ["Formula", "FormulaEncoding"]

Terms: TypeAlias = dict[frozenset[str], tuple[str, ...]]
Check: TypeAlias = tuple[Callable[[Any], bool], str]

MAX_LENGTH, MAX_TERMS, MAX_COLUMNS = 1000, 500, 5000
ALLOWED = (
    "Allowed are columns (in backticks if the name has more than letters, digits and "
    "single underscores), 0, 1, + : * -, parentheses, and C, center, scale, poly, bs "
    "and log of a column, with numbers, text, True, False, None or lists as options. "
    "For anything else make a column of the table first."
)
TOKEN = re.compile(
    r"""\s*( "[^"\\\n]*" | '[^'\\\n]*' | `[^`\n]+` | [^\W\d]\w* | [-+*:=,()\[\].]
           | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? )""",
    re.VERBOSE,
)
# A column of formulaic's: a factor, and the level or the place within it.
PART = re.compile(r"(.+?)(?:\[(?:T\.)?(\w+)\])?")
QUOTES = "\"'"
CONSTANTS = (bool, int, float, str, type(None))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_intercept(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and repr(node.value) in {"0", "1"}


def _whole(low: int, high: int) -> Check:
    return (
        lambda value: type(value) is int and low <= value <= high,
        f"a whole number from {low} to {high}",
    )


def _list_of(item: Callable[[Any], bool], what: str) -> Check:
    return lambda value: isinstance(value, list) and all(map(item, value)), what


NUMBER: Check = (_is_number, "a number")
BOOLEAN: Check = (lambda value: isinstance(value, bool), "True or False")
EITHER: Check = (lambda value: isinstance(value, int | float), "a number or a boolean")
BEYOND: Check = (
    lambda value: value in ("raise", "clip", "zero", "extend"),
    "'raise', 'clip', 'zero' or 'extend'",
)
LEVELS = _list_of(
    lambda value: isinstance(value, str | int | float), "a list of levels"
)
KNOTS = _list_of(_is_number, "a list of numbers")

# The options of each function, in the order in which they may be given without a name.
OPTIONS: dict[str, dict[str, Check]] = {
    "C": {"levels": LEVELS},
    "center": {},
    "log": {},
    "scale": {"center": EITHER, "scale": EITHER, "ddof": NUMBER},
    "poly": {"degree": _whole(1, 20), "raw": BOOLEAN},
    "bs": {
        "df": _whole(1, 100),
        "knots": KNOTS,
        "degree": _whole(0, 20),
        "include_intercept": BOOLEAN,
        "lower_bound": NUMBER,
        "upper_bound": NUMBER,
        "extrapolation": BEYOND,
    },
}
OMITTED = {"levels", "df", "knots", "lower_bound", "upper_bound"}
INNER = ["center", "scale", "log"]
# What each function learns from the data.
LEARNS = {
    "center": {"ddof", "center", "scale"},
    "scale": {"ddof", "center", "scale"},
    "poly": {"alpha", "norms2"},
    "bs": {"lower_bound", "upper_bound", "knots"},
}


class Input(NamedTuple):
    """A column that a formula reads, and how ``C(…)`` says to read it."""

    column: str
    category: bool = False
    levels: tuple[Level, ...] | None = None


class Factor(NamedTuple):
    """A column or a call: as the user wrote it, and the input it is made of."""

    written: str
    source: int
    function: str = ""
    degree: int = 0


@dataclass(frozen=True)
class Formula:
    """A formula that was found to hold nothing but what is allowed.

    Attributes
    ----------
    text
        As it was written.
    inputs
        The columns it reads; formulaic knows number i as ``v{i}``.
    terms
        Each term as its factors, in formulaic's writing.
    factors
        Each factor by its writing for formulaic.
    learning
        The calls that learn from the data, with the name of their function.

    Examples
    --------
    >>> formula = Formula.parse("~ sex * poly(age, 2) - 1")
    >>> [source.column for source in formula.inputs]
    ['sex', 'age']
    >>> formula.terms
    (('v0',), ('poly(v1, degree=2)',), ('v0', 'poly(v1, degree=2)'))
    """

    text: str
    inputs: tuple[Input, ...]
    terms: tuple[tuple[str, ...], ...]
    factors: Mapping[str, Factor]
    learning: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Read a formula.

        Parameters
        ----------
        text
            The formula.

        Raises
        ------
        InputError
            If it holds anything that is not allowed; the message shows it.
        """
        if not isinstance(text, str) or not text.strip(" ~\n"):
            msg = (
                f"A formula is text such as '~ sex + age', not {text!r:.60}. {ALLOWED}"
            )
            raise InputError(msg)
        parser = _Parser(text)
        try:
            terms = tuple(parser.terms(parser.tree()).values())
        except (SyntaxError, RecursionError, MemoryError) as error:
            msg = f"The formula {text!r} cannot be read. {ALLOWED}"
            raise InputError(msg) from error
        used = " ".join(factor for term in terms for factor in term)
        learning = {k: v for k, v in parser.learning.items() if k in used}
        return cls(text, tuple(parser.inputs), terms, parser.factors, learning)

    def alone(self, place: int) -> bool:
        """Return whether an input stands somewhere as itself, in no function.

        Parameters
        ----------
        place
            The number of the input.
        """
        return any(f"v{place}" in term for term in self.terms)


class _Parser:
    """Walk Python's syntax tree of a formula, in which ``:`` is written ``**``.

    The two bind alike: tighter than ``*``, which binds tighter than ``+`` and ``-``.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: dict[str, str] = {}
        self.inputs: dict[Input, int] = {}
        self.factors: dict[str, Factor] = {}
        self.learning: dict[str, str] = {}

    def tree(self) -> ast.expr:
        """Return the syntax tree; nothing is run."""
        text = self.text.strip().removeprefix("~").rstrip()
        if len(text) > MAX_LENGTH:
            self.refuse(f"it has {len(text)} characters, over {MAX_LENGTH}")
        words, place = [], 0
        while place < len(text):
            match = TOKEN.match(text, place)
            if match is None:
                rest = text[place:].strip()
                side = ", nor is a left-hand side" if rest[0] == "~" else ""
                self.refuse(f"{rest[:20]!r} is not allowed{side}")
            words.append(self.word(match[1]))
            place = match.end()
        return ast.parse(" ".join(words), mode="eval").body

    def word(self, word: str) -> str:
        """Return a token as Python's parser can take it."""
        if word == ":":
            return "**"
        keyword = iskeyword(word) and word.islower()
        if word[0] == "`" or keyword or (word[0] not in QUOTES and not word.isascii()):
            name = f"__{len(self.names)}"
            self.names[name] = word.strip("`")
            return name
        if "__" in word and word[0] not in QUOTES:
            self.refuse(f"{word!r} is not allowed: write such a column in backticks")
        return word

    def refuse(self, why: str) -> NoReturn:
        msg = f"The formula {self.text!r} cannot be used: {why}. {ALLOWED}"
        raise InputError(msg)

    def show(self, node: ast.AST) -> str:
        """Return a part of the formula as the user wrote it, but for spaces."""
        shown = ast.unparse(node).replace("**", ":")
        return re.sub(r"__\d+", self.back, shown)

    def back(self, match: re.Match[str]) -> str:
        name = self.names.get(match[0])
        return match[0] if name is None else f"`{name}`"

    def terms(self, node: ast.expr, *, added: bool = True) -> Terms:
        """Expand a sum or product into terms, each a set of factors."""
        match node:
            case ast.BinOp(left, ast.Add() | ast.Sub() as sign, right):
                terms = self.terms(left, added=added)
                others = self.terms(right, added=added)
                if isinstance(sign, ast.Sub):
                    return {key: terms[key] for key in terms if key not in others}
                return terms | others
            case ast.BinOp(left, ast.Mult() | ast.Pow() as sign, right):
                terms = self.terms(left, added=False)
                others = self.terms(right, added=False)
                if len(terms) * len(others) > MAX_TERMS:
                    self.refuse(f"it has over {MAX_TERMS} terms")
                pairs = [a + b for a in terms.values() for b in others.values()]
                crossed = {frozenset(p): tuple(dict.fromkeys(p)) for p in pairs}
                whole = terms | others | crossed
                return crossed if isinstance(sign, ast.Pow) else whole
            case _ if added and _is_intercept(node):
                return {}
            case ast.Name() | ast.Call():
                name = self.factor(node)
                return {frozenset({name}): (name,)}
        return self.refuse(f"{self.show(node)!r} is not allowed")

    def factor(self, node: ast.Name | ast.Call, *, inside: str = "") -> str:
        """Return a column or a call in formulaic's writing, and note what it reads."""
        if isinstance(node, ast.Name):
            return self.note(node, Input(self.names.get(node.id, node.id)))
        function = node.func.id if isinstance(node.func, ast.Name) else ""
        if function not in OPTIONS or (inside and function not in INNER):
            allowed = INNER if inside else [*OPTIONS]
            where = f"in {inside} only" if inside else "only"
            self.refuse(f"{self.show(node)!r} is not allowed, {where} {allowed}")
        first = node.args[0] if node.args else None
        options = self.options(node, function)
        if function == "C" and isinstance(first, ast.Name):
            levels = tuple(options["levels"]) if "levels" in options else None
            column = self.names.get(first.id, first.id)
            return self.note(node, Input(column, category=True, levels=levels))
        if function == "C" or not isinstance(first, ast.Name | ast.Call):
            self.refuse(f"{self.show(node)!r} is not a function of one column")
        inner = self.factor(first, inside=function)
        given = [f"{option}={value!r}" for option, value in options.items()]
        name = f"{function}({', '.join([inner, *given])})"
        degree = options.get("degree", 1) if function == "poly" else 0
        source = self.factors[inner].source
        self.factors.setdefault(name, Factor(self.show(node), source, function, degree))
        if function in LEARNS:
            self.learning[name] = "" if options.get("raw") else function
        return name

    def note(self, node: ast.expr, column: Input) -> str:
        """Return the name of an input, which is new or met before."""
        source = self.inputs.setdefault(column, len(self.inputs))
        written = self.names.get(getattr(node, "id", ""), "") or self.show(node)
        self.factors.setdefault(f"v{source}", Factor(written, source))
        return f"v{source}"

    def options(self, node: ast.Call, function: str) -> dict[str, Any]:
        """Return the options of a call by name, each checked."""
        known = OPTIONS[function]
        given = [*zip(known, node.args[1:], strict=False)]
        given += [(str(word.arg), word.value) for word in node.keywords]
        names = [name for name, _ in given]
        if (
            len(node.args) > 1 + len(known)
            or {*names} - {*known}
            or len({*names}) < len(names)
        ):
            self.refuse(
                f"{self.show(node)!r} has other options than {[*known]}, each once"
            )
        options = {}
        for name, value in given:
            options[name] = self.literal(value)
            check, expected = known[name]
            if options[name] is None and name in OMITTED:
                del options[name]
            elif not check(options[name]):
                self.refuse(f"{name} in {self.show(node)!r} must be {expected}")
        return options

    def literal(self, node: ast.expr) -> Any:
        """Read a number, text, True, False, None, or a list of them."""
        match node:
            case ast.List(items):
                return [self.literal(item) for item in items]
            case ast.UnaryOp(ast.USub(), ast.Constant() as number):
                value = self.literal(number)
                if _is_number(value):
                    return -value
            case ast.Constant(value) if type(value) in CONSTANTS:
                if not isinstance(value, float) or isfinite(value):
                    return value
        return self.refuse(f"{self.show(node)!r} is not a plain value")


@dataclass(frozen=True)
class FormulaEncoding:
    """A formula with what its functions learned from the rows of `fit`.

    Attributes
    ----------
    formula
        The formula.
    levels
        The levels of each input that holds labels; None for numbers.
    names
        The name of each column it gives, such as ``sex[f]:age``.
    terms
        The term that each column belongs to, such as ``sex:age``.
    state
        What each function learned, in plain values.

    Examples
    --------
    >>> formula = Formula.parse("~ sex + center(age)")
    >>> sex, age = np.array([0, 1, 1]), np.array([30.0, 40.0, 50.0])
    >>> encoding = FormulaEncoding.learn(formula, [sex, age], [("m", "f"), None])
    >>> encoding.names
    ('sex[f]', 'center(age)')
    >>> encoding.columns([sex, age])
    array([[  0., -10.],
           [  1.,   0.],
           [  1.,  10.]])
    """

    formula: Formula
    levels: tuple[tuple[Level, ...] | None, ...]
    names: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def learn(
        cls,
        formula: Formula,
        values: Sequence[npt.NDArray[Any]],
        levels: Sequence[tuple[Level, ...] | None],
    ) -> FormulaEncoding:
        """Learn the columns that a formula gives.

        Parameters
        ----------
        formula
            The formula.
        values
            The values of each input: numbers, or codes of labels.
        levels
            The levels of each input that holds labels; None for numbers.

        Raises
        ------
        InputError
            If a function of numbers is given labels, or cannot be computed.
        """
        for factor in formula.factors.values():
            column = formula.inputs[factor.source].column
            if factor.function and levels[factor.source] is not None:
                msg = f"{factor.written} needs numbers, but {column!r} holds labels."
                raise InputError(msg)
            distinct = len(pd.unique(values[factor.source])) if factor.degree else 1
            if distinct <= factor.degree:
                msg = (
                    f"{factor.written} needs more than {factor.degree} different values, "
                    f"but {column!r} has {distinct}."
                )
                raise InputError(msg)
        width = {
            f"v{place}": 1 if level is None else max(len(level) - 1, 1)
            for place, level in enumerate(levels)
        }
        total = sum(prod(width.get(f, 1) for f in term) for term in formula.terms)
        if total > MAX_COLUMNS:
            msg = (
                f"The formula {formula.text!r} gives {total} columns or more: too many."
            )
            raise DesignError(msg)
        empty = cls(formula, tuple(levels))
        _, structure, learned = empty._materialize(values)
        named = [
            (empty._show(name), ":".join(formula.factors[f].written for f in factors))
            for factors, columns in structure
            for name in columns
        ]
        return cls(
            formula,
            tuple(levels),
            tuple(name for name, _ in named),
            tuple(term for _, term in named),
            _plain(learned),
        )

    def columns(self, values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Return the columns for the values of each input: (n, p).

        Parameters
        ----------
        values
            The values of each input, as in `learn`.

        Raises
        ------
        DesignError
            If a function has no finite value for some of them.
        """
        matrix, _, _ = self._materialize(values)
        if matrix.shape[1] != len(self.names):
            msg = f"{self.formula.text!r} gives {matrix.shape[1]}, not {self.names}."
            raise InputError(msg)
        for name, column in zip(self.names, matrix.T, strict=True):
            bad = np.flatnonzero(~np.isfinite(column))
            if bad.size:
                msg = (
                    f"{name} has no finite value in {bad.size} of {len(column)} samples "
                    f"(first in row {bad[0]})."
                )
                raise DesignError(msg)
        return matrix

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads."""
        return {
            "formula": self.formula.text,
            "names": list(self.names),
            "terms": list(self.terms),
            "state": self.state,
        }

    @classmethod
    def from_json(
        cls, saved: Mapping[str, Any], levels: Sequence[tuple[Level, ...] | None]
    ) -> FormulaEncoding:
        """Read what `to_json` wrote; the formula and its state are checked anew.

        Parameters
        ----------
        saved
            The values.
        levels
            The levels of each input, as in `learn`.

        Raises
        ------
        InputError
            If the formula holds what is not allowed, or its state is not its own.
        """
        formula = Formula.parse(saved["formula"])
        state = saved["state"]
        wanted = {name: LEARNS.get(f, set()) for name, f in formula.learning.items()}
        if {name: set(learned) for name, learned in state.items()} != wanted:
            msg = f"The saved state of the formula {formula.text!r} is not its own."
            raise InputError(msg)
        if not all(
            _is_numeric(v) for learned in state.values() for v in learned.values()
        ):
            msg = f"The saved state of the formula {formula.text!r} must be numbers."
            raise InputError(msg)
        names, terms = tuple(saved["names"]), tuple(saved["terms"])
        return cls(formula, tuple(levels), names, terms, state)

    def _materialize(
        self, values: Sequence[npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[np.float64], list[tuple[list[str], list[str]]], Any]:
        """Have formulaic build the columns; return their terms and names, and state."""
        if not self.formula.terms:
            return np.empty((len(values[0]) if values else 0, 0)), [], {}
        from formulaic import ModelSpec
        from formulaic.errors import FormulaicError

        table = {}
        for place, levels in enumerate(self.levels):
            codes: Any = values[place]
            if levels is not None:
                known = pd.RangeIndex(len(levels))
                codes = pd.Categorical.from_codes(codes, categories=known)
            table[f"v{place}"] = codes
        spec = ModelSpec(
            formula=" + ".join(["1", *map(":".join, self.formula.terms)]),
            na_action="ignore",
            output="numpy",
            transform_state=_restored(self.state),
        )
        try:
            with np.errstate(all="ignore"):
                built = spec.get_model_matrix(pd.DataFrame(table), context={})
        except (FormulaicError, ValueError, ArithmeticError) as error:
            why = str(error)
            for name in sorted(self.formula.factors, key=len, reverse=True):
                why = why.replace(name, self.formula.factors[name].written)
            msg = f"The formula {self.formula.text!r} cannot be computed: {why}"
            raise DesignError(msg) from error
        structure = [
            ([factor.expr for factor in row.term.factors], list(row.columns))
            for row in built.model_spec.structure[1:]
        ]
        matrix = np.asarray(built, dtype=np.float64)[:, 1:]
        return matrix, structure, built.model_spec.transform_state

    def _show(self, column: str) -> str:
        """Return formulaic's name of a column in the user's words."""
        parts = []
        for part in column.split(":"):
            match = PART.fullmatch(part)
            name, place = match.groups() if match else (part, None)
            factor = self.formula.factors[name]
            levels = None if factor.function else self.levels[factor.source]
            if place is None:
                parts.append(factor.written)
            else:
                level = place if levels is None else levels[int(place)]
                parts.append(f"{factor.written}[{level}]")
        return ":".join(parts)


def _plain(state: Any) -> Any:
    """Return what functions learned as plain values, the keys of mappings as text."""
    if isinstance(state, Mapping):
        return {str(key): _plain(value) for key, value in state.items()}
    return np.asarray(state).tolist()


def _restored(state: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what functions learned as formulaic has it: mappings have whole keys."""
    return {
        name: {
            key: {int(k): v for k, v in value.items()} if type(value) is dict else value
            for key, value in learned.items()
        }
        for name, learned in state.items()
    }


def _is_numeric(value: Any) -> bool:
    """Return whether a learned value is made of finite numbers alone."""
    if isinstance(value, Mapping):
        return all(map(str.isdecimal, value)) and all(map(_is_numeric, value.values()))
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return value is None or (_is_number(value) and isfinite(value))

"""Formulas such as ``~ sex + poly(age, 2)``, read by a small grammar.

Formulaic runs what stands in a formula as Python. So a formula is parsed here first,
node by node against all that is allowed, and written anew with names of our own for its
columns (``v0``, ``v1``, …): no text of a user or of a file ever reaches formulaic.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from batchcorr.design.formula_options import INNER, OMITTED, OPTIONS, STATES, is_number
from batchcorr.design.formula_text import ALLOWED, FormulaText
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.design.labels import Level

__all__ = ["Formula", "Input"]

Terms: TypeAlias = dict[frozenset[str], tuple[str, ...]]

MAX_TERMS = 500
CONSTANTS = (bool, int, float, str, type(None))


def _is_intercept(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and repr(node.value) in {"0", "1"}


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
    stateful
        The calls that keep a state of the data, with the name of their function.

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
    stateful: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Read a formula."""
        if not isinstance(text, str) or not text.strip(" ~\n"):
            msg = (
                f"A formula must be text such as '~ sex + age', not {text!r:.60}. "
                f"{ALLOWED}"
            )
            raise InputError(msg)
        parser = _Parser(text)
        try:
            terms = tuple(parser.terms(parser.tree()).values())
        except (SyntaxError, RecursionError, MemoryError) as error:
            msg = f"The formula {text!r} cannot be read. {ALLOWED}"
            raise InputError(msg) from error
        used = " ".join(factor for term in terms for factor in term)
        stateful = {k: v for k, v in parser.stateful.items() if k in used}
        return cls(text, tuple(parser.inputs), terms, parser.factors, stateful)

    def alone(self, place: int) -> bool:
        """Return whether an input stands somewhere as itself, in no function."""
        return any(f"v{place}" in term for term in self.terms)


class _Parser(FormulaText):
    """Walk the syntax tree of a formula, and note what it reads."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.inputs: dict[Input, int] = {}
        self.factors: dict[str, Factor] = {}
        self.stateful: dict[str, str] = {}

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
        if function in STATES:
            self.stateful[name] = "" if options.get("raw") else function
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
                if is_number(value):
                    return -value
            case ast.Constant(value) if type(value) in CONSTANTS:
                if not isinstance(value, float) or isfinite(value):
                    return value
        return self.refuse(f"{self.show(node)!r} is not a plain value")

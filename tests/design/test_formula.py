from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.interpolate import BSpline

from batchcorr.design.formula import Formula
from batchcorr.design.formula_encoding import FormulaEncoding
from batchcorr.design.saved import formula_to_json, read_formula
from batchcorr.errors import DesignError, InputError

HOSTILE = [
    "__import__('os').system('x')",
    "`x`.__class__",
    "x.values",
    "x.values.tofile('f')",
    "np.log(x)",
    'open("f")',
    "open('f').read()",
    "{x+1}",
    "{__import__('os')}",
    "I(x)",
    'Q("x")',
    "lag(x)",
    "hashed(x, levels=10)",
    "cs(x, df=3)",
    "eval('1')",
    "exec('import os')",
    "getattr(x, 'values')",
    "(lambda: x)()",
    "lambda x: x",
    "[x for x in y]",
    "x[0]",
    "x['a']",
    "x if y else z",
    "x := 1",
    "x = 1",
    "x == 1",
    "x < y",
    "not x",
    "x and y",
    "await x",
    "*x",
    "x; import os",
    "x\nimport os",
    "x # comment",
    "x @ y",
    "x / y",
    "x // y",
    "x % y",
    "x %in% y",
    "x ** 2",
    "x ^ 2",
    "x | y",
    "y ~ x",
    "~ ~ x",
    "x, y",
    "(x, y)",
    "'x'",
    '"x"',
    "f'{x}'",
    "f'{open(1)}'",
    "b'x'",
    "`x`y`",
    "`x",
    "``",
    "`x`; `y`",
    "`x\n`",
    "x\\",
    "C(x, 'a\\'b')",
    "__x",
    "x__y",
    "__builtins__",
    "__FORMULAIC_STATE__",
    "_C(x)",
    "C()",
    "C(x)(y)",
    "C(x)[0]",
    "C(x).y",
    "C(C(x))",
    "C(log(x))",
    "C(x, contr.treatment('a'))",
    "C(x, __import__('os'))",
    "C(x, levels=open('f'))",
    "C(x, levels='ab')",
    "C(x, levels=[['a']])",
    "C(x, levels=[y])",
    "C(x, levels={'a'})",
    "C(x, spans_intercept=False)",
    "C(x, _state={})",
    "C(data=x)",
    "C(x, *y)",
    "C(x, **y)",
    "log(x, out=y)",
    "log(x, y)",
    "log(x + 1)",
    "log(x * 2)",
    "log(-x)",
    "log(2)",
    "log('x')",
    "log(x.y)",
    "log(log)(x)",
    "log(C(x))",
    "log(poly(x, 2))",
    "scale(bs(x))",
    "scale(x, center='a')",
    "scale(x, ddof=[1])",
    "scale(x, scale=1e999)",
    "scale(x, center=-1e999)",
    "scale(x, center=1j)",
    "scale(x, True, center=True)",
    "scale(x, center=True, center=True)",
    "scale(x, True, True, 1, 2)",
    "center(x, True)",
    "poly(x, 0)",
    "poly(x, 10000000)",
    "poly(x, 2.5)",
    "poly(x, degree=True)",
    "poly(x, degree=-1)",
    "poly(x, y)",
    "poly(x, 2",
    "poly(x))",
    "bs(x, df=1000000)",
    "bs(x, knots=x)",
    "bs(x, knots=['a'])",
    "bs(x, knots=[1, [2]])",
    "bs(x, extrapolation='na')",
    "bs(x, extrapolation=__import__)",
    "x +",
    "+ x",
    "- x",
    "x + + y",
    "x y",
    "x 2",
    "2",
    "x + 2",
    "x + 0.0",
    "x + True",
    "x + None",
    "x + ...",
    "x * 1",
    "0:x",
    "(x + 1):y",
    "(x - 1) * y",
    "-1:x",
    "1_0",
    "0x1",
    "",
    "~",
    "   ",
    "()",
    "(x",
    "x)",
    "(" * 300 + "x" + ")" * 300,
    "+".join(["x"] * 600),
    "*".join(f"x{i}" for i in range(40)),
    "\0",
    "x\u200b",
    "log(x)" + chr(0xFF0B) + "y",
]

# x stands for numbers, s for labels.
X = np.array([30.0, 41.0, 52.0, 63.5, 28.0, 47.0, 55.0, 39.0])
S = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)
DUMMY = np.eye(3)[S]
LEVELS = ("a", "b", "c")


def encode(text, **values):
    """Learn a formula on columns named in the keywords: codes are labels."""
    formula = Formula.parse(text)
    inputs = [values[source.column] for source in formula.inputs]
    levels = [
        LEVELS if column.dtype == np.int32 or source.category else None
        for column, source in zip(inputs, formula.inputs, strict=True)
    ]
    encoding, _ = FormulaEncoding.fit_transform(formula, inputs, levels)
    return encoding, encoding.columns(inputs)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_formula_is_refused(text):
    with pytest.raises(InputError, match="Allowed are columns"):
        Formula.parse(text)
    saved = {"formula": text, "names": ["x"], "terms": ["x"], "state": {}}
    with pytest.raises(InputError, match="Allowed are columns"):
        read_formula(saved, [None])


def test_a_hostile_formula_is_refused_before_formulaic_is_imported():
    script = """
import json, sys
from batchcorr.design.formula import Formula
for text in json.load(sys.stdin):
    try:
        Formula.parse(text)
    except ValueError:
        continue
    raise SystemExit(text)
raise SystemExit("formulaic was imported" if "formulaic" in sys.modules else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(HOSTILE),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", [None, 3, b"x", ["x"], Formula])
def test_a_formula_is_text(text):
    with pytest.raises(InputError, match="A formula must be text"):
        Formula.parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("np.log(x)", "'np.log(x)'"),
        ("a + x.values:b", "'x.values'"),
        ("x / y", "'/ y'"),
        ("y ~ x", "left-hand side"),
        ("I(x)", "'I(x)' is not allowed, only ['C', 'center'"),
        ("log(poly(x, 2))", "in log only ['center', 'scale', 'log']"),
        ("poly(x, 99)", "degree in 'poly(x, 99)' must be a whole number from 1 to 20"),
        ("poly(x, power=2)", "other options than ['degree', 'raw']"),
        ("log(`my age` + 1)", "'log(`my age` + 1)' is not a function of one column"),
        ("C(x, levels=['a', __7])", "'__7'"),
        ("C('__7', levels=[x])", "'x' is not a plain value"),
    ],
)
def test_the_refusal_shows_what_is_wrong(text, shown):
    with pytest.raises(InputError) as caught:
        Formula.parse(text)
    assert shown in str(caught.value)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a", ["a"]),
        ("~ a + b", ["a", "b"]),
        ("  ~a+b  ", ["a", "b"]),
        ("a + a", ["a"]),
        ("a:b", ["a:b"]),
        ("a*b", ["a", "b", "a:b"]),
        ("a*b:c", ["a", "b:c", "a:b:c"]),
        ("a*b*c", ["a", "b", "a:b", "c", "a:c", "b:c", "a:b:c"]),
        ("(a + b):c", ["a:c", "b:c"]),
        ("(a + b)*c", ["a", "b", "c", "a:c", "b:c"]),
        ("a*b - a", ["b", "a:b"]),
        ("a*b - b:a", ["a", "b"]),
        ("a:a", ["a"]),
        ("a - a", []),
        ("1", []),
        ("0 + a", ["a"]),
        ("a - 1", ["a"]),
        ("-1 + a", ["a"]),
        ("a + (b - 1)", ["a", "b"]),
        ("`a` + b", ["a", "b"]),
    ],
)
def test_terms_expand_as_in_r(text, terms):
    formula = Formula.parse(text)
    written = [
        ":".join(formula.factors[factor].written for factor in term)
        for term in formula.terms
    ]
    assert written == terms


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("`cell type`", "cell type"),
        ("`__import__('os').system('x')`", "__import__('os').system('x')"),
        ("`a__b`", "a__b"),
        ("`x + y:z`", "x + y:z"),
        ("`1`", "1"),
        ("class", "class"),
        ("lambda", "lambda"),
        ("np", "np"),
        ("C", "C"),
        ("log", "log"),
        ("contr", "contr"),
        ("größe", "größe"),
        ("\u00b5", "\u00b5"),  # Python's parser would make another letter of it
        ("_", "_"),
    ],
)
def test_any_column_can_be_named(text, column):
    formula = Formula.parse(f"~ {text} + center({text})")
    assert [source.column for source in formula.inputs] == [column]
    encoding, columns = encode(text, **{column: X})
    assert encoding.names == (column,)
    np.testing.assert_array_equal(columns, X[:, None])


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("x", ["x"], [X]),
        ("s", ["s[b]", "s[c]"], DUMMY.T[1:]),
        ("s - 1", ["s[b]", "s[c]"], DUMMY.T[1:]),
        ("0 + s", ["s[b]", "s[c]"], DUMMY.T[1:]),
        ("s + x", ["s[b]", "s[c]", "x"], [*DUMMY.T[1:], X]),
        (
            "s*x",
            ["s[b]", "s[c]", "x", "s[b]:x", "s[c]:x"],
            [*DUMMY.T[1:], X, *(DUMMY * X[:, None]).T[1:]],
        ),
        ("s:x", ["s[a]:x", "s[b]:x", "s[c]:x"], (DUMMY * X[:, None]).T),
        ("x + x:s", ["x", "x:s[b]", "x:s[c]"], [X, *(DUMMY * X[:, None]).T[1:]]),
        ("log(x)", ["log(x)"], [np.log(X)]),
        ("center(x)", ["center(x)"], [X - X.mean()]),
        ("scale(x)", ["scale(x)"], [(X - X.mean()) / X.std(ddof=1)]),
        ("scale(x, ddof=0)", ["scale(x, ddof=0)"], [(X - X.mean()) / X.std()]),
        (
            "scale(log(x), center=False, scale=2)",
            ["scale(log(x), center=False, scale=2)"],
            [np.log(X) / 2],
        ),
        ("scale(x, -1.5, 2)", ["scale(x, -1.5, 2)"], [(X + 1.5) / 2]),
        (
            "poly(x, 2, raw=True)",
            ["poly(x, 2, raw=True)[0]", "poly(x, 2, raw=True)[1]"],
            [X, X**2],
        ),
        (
            "center(x):s",
            ["center(x):s[a]", "center(x):s[b]", "center(x):s[c]"],
            (DUMMY * (X - X.mean())[:, None]).T,
        ),
        ("C(s)", ["C(s)[b]", "C(s)[c]"], DUMMY.T[1:]),
        ("1", [], np.empty((0, 8))),
        ("x - x", [], np.empty((0, 8))),
    ],
)
def test_columns_by_hand(text, names, expected):
    encoding, columns = encode(text, x=X, s=S)
    assert list(encoding.names) == names
    if text != "1":  # which knows no rows
        np.testing.assert_allclose(columns, np.transpose(expected), atol=1e-12)


def test_polynomials_are_orthonormal_and_span_the_powers():
    encoding, columns = encode("poly(x, 3)", x=X)
    assert encoding.terms == ("poly(x, 3)",) * 3
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(columns.sum(axis=0), 0, atol=1e-12)
    powers = np.stack([np.ones(8), X, X**2, X**3], axis=1)
    _, residual, rank, _ = np.linalg.lstsq(powers, columns, rcond=None)
    assert rank == 4
    np.testing.assert_allclose(residual, 0, atol=1e-20)


def test_splines_are_those_of_scipy():
    _, columns = encode("bs(x, knots=[40, 50.5], degree=3)", x=X)
    knots = np.r_[[X.min()] * 4, 40, 50.5, [X.max()] * 4]
    expected = BSpline.design_matrix(X, knots, 3).toarray()[:, 1:]
    np.testing.assert_allclose(columns, expected, atol=1e-12)


def test_the_rank_is_full_whatever_the_terms():
    s2 = np.array([0, 0, 1, 1, 1, 0, 0, 2], np.int32)
    for text in ["s:t", "s*t", "s + s:t", "t:s + x:s"]:
        rng = np.random.default_rng(1)
        s, t = rng.integers(0, 3, (2, 100)).astype(np.int32)
        _, columns = encode(text, s=s, t=t, x=rng.normal(size=100))
        full = np.c_[np.ones(100), columns]
        assert np.linalg.matrix_rank(full) == full.shape[1]
    assert encode("s:t", s=S, t=s2)[1].shape == (8, 8)


LEARNING = (
    "s*center(x) + scale(x, ddof=0) + poly(x, 2) + bs(scale(log(x)), df=4) "
    "+ poly(center(x), 3) + poly(x, 2, raw=True) + log(x) + bs(x, knots=[40.0, 5e1])"
)


def test_what_was_learned_stays_and_survives_json():
    encoding, columns = encode(LEARNING, x=X, s=S)
    text = json.dumps(formula_to_json(encoding), allow_nan=False)
    again = read_formula(json.loads(text), encoding.levels)
    assert again == encoding
    sources = [source.column for source in encoding.formula.inputs]
    assert sources == ["s", "x"]
    for rows in ([0], [3, 1], slice(None)):
        for one in (encoding, again):
            np.testing.assert_array_equal(
                one.columns([S[rows], X[rows]]), columns[rows]
            )


def test_a_call_that_is_taken_away_learns_nothing():
    encoding, _ = encode("scale(x) + center(x) - center(x)", x=X)
    assert set(encoding.state) == {"scale(v0)"}
    read_formula(formula_to_json(encoding), encoding.levels)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"center(v0)": {}},
        {"scale(v0)": {"ddof": 1, "center": 0, "scale": 1}},
        {"center(v0)": {"ddof": 1, "center": "0", "scale": None}},
        {"center(v0)": {"ddof": 1, "center": float("nan"), "scale": None}},
        {"center(v0)": {"ddof": 1, "center": True, "scale": None}},
        {"center(v0)": {"ddof": 1, "center": {"a": 1}, "scale": None}},
        {"center(v0)": {"ddof": 1, "center": [[], "a"], "scale": None}},
        {"center(v0)": {"ddof": 1, "center": 0, "scale": None, "x": 1}},
        {"center(v0)": {"ddof": 1, "center": 0, "scale": None}, "log(v0)": {}},
    ],
    ids=range(10),
)
def test_a_damaged_state_is_not_read(state):
    saved = {"formula": "center(x)", "names": ["x"], "terms": ["x"], "state": state}
    with pytest.raises(InputError, match="saved state"):
        read_formula(saved, [None])


def test_the_number_of_saved_names_is_checked():
    encoding, _ = encode("center(x)", x=X)
    saved = formula_to_json(encoding) | {"names": ["a", "b"]}
    with pytest.raises(InputError, match="gives 1"):
        read_formula(saved, [None]).columns([X])


@pytest.mark.parametrize(
    ("text", "x", "match"),
    [
        ("log(x)", X - 41, r"log\(x\) has no finite value in 4 .*first in row 0"),
        ("scale(x)", np.ones(8), r"scale\(x\) has no finite value in 8"),
        ("poly(x, 3)", np.r_[X[:3], X[:3], 30, 30], "more than 3 different"),
        ("bs(x, df=2)", X, "cannot be computed.*bs\\(x, df=2\\)"),
        ("bs(x, df=4, knots=[40])", X, "cannot be computed"),
        ("bs(x, lower_bound=40)", X, "cannot be computed.*extrapolation"),
    ],
)
def test_what_cannot_be_computed(text, x, match):
    with pytest.raises(InputError, match=match):
        encode(text, x=x)


def test_a_spline_says_how_to_go_beyond_its_range():
    encoding, _ = encode("bs(x)", x=X)
    with pytest.raises(DesignError, match="extrapolation"):
        encoding.columns([X + 1])
    encoding, columns = encode("bs(x, extrapolation='clip')", x=X)
    beyond = encoding.columns([np.array([1000.0])])
    np.testing.assert_array_equal(beyond[0], columns[X.argmax()])


@pytest.mark.parametrize("text", ["log(s)", "poly(s, 2)", "x + scale(log(s))"])
def test_a_function_of_numbers_refuses_labels(text):
    with pytest.raises(InputError, match="needs numbers, but 's' contains labels"):
        encode(text, x=X, s=S)


def test_too_many_columns_are_refused_before_they_are_made():
    formula = Formula.parse("a:b")
    codes = np.arange(100, dtype=np.int32)
    levels = [tuple(range(100))] * 2
    with pytest.raises(DesignError, match="9801 or more design columns"):
        FormulaEncoding.fit_transform(formula, [codes, codes], levels)

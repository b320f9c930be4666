"""The seven claims: every number of their statements, and what a claim is.

Which number of the statements is shown under which key of `claim.measured`, and whether
it is judged (theory gives it) or reported (one draw of random numbers, or a speed):

1 bias: output 8e-13, gradient 5e-17, LayerNorm constant 2e-15, GroupNorm and
    InstanceNorm 9e-16, lag D (1 - m)^t / σ judged; LayerNorm any 2.9, Conv → ReLU → BN
    1.2, Linear → BN on (N, L, C), float32 2e-3 and 0.18, drift of Adam 0.19 and with
    eps 2e-5 reported, of SGD 0 judged; what `lint` finds judged
2 folding: 2e-15, in float32 4e-7 judged; speeds reported
3 scale_invariance: 2e-16, 6e-16, 3e-16, ε/a² 2e-16, growing rate 5e-15, angles 0.970 to
    0.989, AdamW .183, rows 1.0000 judged, and what `lint` finds; naive ε 4e-3, without
    BN 0.145, Adam + L2 .810/.182/.0215/.0038, rows 3.37 reported
4 dropout: both formulas by all masks (p if μ = 0), .497, 1.000, .405, update_bn .496,
    recalibrated 1.000, and what `lint` says judged
5 accumulation: 4e-16 without BN, E[var], E[1/sd], K updates, remedy 6e-16 judged, and
    that the mean error is none of noise; 3.17/.61/.36/.24/.15, .73/.32/.17/.10/.063 and
    .25/.037/.023/.016/.010 reported
6 few_shot: γ², v/n, γ²v/(nγ² + v) within 1 %, ComBat's, and eb beside the best judged
7 unity: 4e-16, float32 3e-7, eval 9e-16, running_var, ComBat 3e-15, shrinkage
    as 1/n, log 1e-15, log1p .47 judged; ddof 1 1e-2, .33/.28/.18/.10/.011/.001, 4.13 and
    1.36 reported
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import batchcorr as bc
from batchcorr.cli import app
from batchcorr.errors import InputError, MissingPackageError

torch = pytest.importorskip("torch")

from batchcorr.bridge import claims  # noqa: E402 - after torch
from batchcorr.bridge.claims._claim import Claim  # noqa: E402
from batchcorr.bridge.claims._measured import Measured, near, zero  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "bias",
    "folding",
    "scale_invariance",
    "dropout",
    "accumulation",
    "few_shot",
    "unity",
]


FEWER = 40
"""Partitions of a batch, of 200 in the command."""


@pytest.fixture(scope="module")
def bladder():
    adata = bc.datasets.bladder()
    return adata.X, adata.obs["batch"].tolist()


@pytest.fixture(scope="module")
def found(bladder):
    """All claims, each measured once when a test first asks for it."""

    class Found(dict):
        def __missing__(self, name):
            given = bladder if name == "unity" else ()
            fewer = {"partitions": FEWER} if name == "accumulation" else {}
            self[name] = getattr(claims, name)(*given, **fewer)
            return self[name]

    return Found()


# -- the numbers ---------------------------------------------------------------------


def series(name, **values):
    return {f"{name}_{at[1:]}": value for at, value in values.items()}


REPORTED = {
    "bias": {
        "layer_norm_any": 2.9,
        "relu_between": 1.2,
        "other_axis": 2.4,
        "float32_1e4": 2e-3,
        "float32_1e6": 0.18,
        "drift_adam": 0.19,
        "drift_adam_eps": 2e-5,
    },
    "scale_invariance": {
        "eps_naive": 4e-3,
        "growing_rate_plain": 0.145,
        "adam_0.1": 0.810,
        "adam_1": 0.182,
        "adam_10": 0.0215,
        "adam_100": 0.0038,
        "rows_adam": 3.37,
    },
    "accumulation": {
        **series("one", _2=3.17, _4=0.61, _8=0.36, _16=0.24, _32=0.15),
        **series("mean", _2=0.73, _4=0.32, _8=0.17, _16=0.10, _32=0.063),
        **series("chance", _2=0.25, _4=0.037, _8=0.023, _16=0.016, _32=0.010),
    },
    "unity": {
        "train_ddof_1": 1e-2,
        "variance_raw": 4.13,
        "variance_log": 1.36,
        **series("shrinkage", _3=0.33, _10=0.28, _30=0.18),
        **series("shrinkage", _100=0.10, _1000=0.011, _10000=0.001),
    },
}
"""Outcomes of one draw each, as once recorded: shown, and of this order, no more."""


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_holds(found, name):
    claim = found[name]
    assert claim.name == name
    assert claim.holds, claim.verdict
    for key, recorded in REPORTED.get(name, {}).items():
        number = claim.measured[key]
        assert number.expected is None
        fewer = (200 / FEWER) ** 0.5 if key.startswith("chance") else 1
        assert 1 / 2.1 < number.value / (fewer * recorded) < 2.1, number


@pytest.mark.parametrize(
    ("name", "keys", "bound"),
    [
        ("bias", "output gradient layer_norm_constant group_norm instance_norm", 1e-11),
        ("folding", "float32", 1e-5),
        ("scale_invariance", "output gradient orthogonal eps_law growing_rate", 1e-13),
        ("dropout", "weighted", 1e-14),
        ("accumulation", "without_none without_LayerNorm without_GroupNorm", 1e-14),
        ("accumulation", "remedy", 1e-14),
        ("unity", "train eval running_var instance domain adabn combat", 1e-12),
    ],
)
def test_identities_hold_to_rounding(found, name, keys, bound):
    for key in keys.split():
        number = found[name].measured[key]
        assert abs(number.value) < bound, number
        assert number.expected == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bias", {"lint_redundant": 3, "lint_needed": 0, "drift_sgd": 0}),
        ("folding", {"left": 0, "kept": 3}),
        ("scale_invariance", {"lint_weights": 2, "rows_adamw": 1, "adamw_10": 0.1813}),
        (
            "dropout",
            {"before": 0.5, "after": 1, "between": 0.405, "lint_between": 0.405},
        ),
        ("dropout", {"update_bn": 0.5, "recalibrated": 1, "unit_0_0.5": 0.5}),
        (
            "accumulation",
            {"running": 1 - 0.9**16, "variance_4": 0.75, "inverse_4": 1.596},
        ),
        ("accumulation", {"noise_4": 0, "inverse_8": 1.204, "inverse_32": 1.041}),
        ("few_shot", {"source_8": 0.25, "support_8": 0.125, "mix_8": 1 / 12}),
        ("few_shot", {"combat_16": 0.0503, "bayes_1": 1, "bayes_32": 1}),
        ("unity", {"shrinkage_rate": 10, "log1p": 0.47}),
    ],
)
def test_what_theory_gives_is_judged(found, name, expected):
    for key, value in expected.items():
        assert found[name].measured[key].expected == pytest.approx(value, rel=2e-3), key


# -- a broken routine turns its claim off ----------------------------------------------


def module_of(name):
    """The file of a claim; `claims.bias` is the function."""
    return importlib.import_module(f"batchcorr.bridge.claims.{name}")


def silenced(lint, *rules):
    """A `lint` that misses some rules, and all weights."""

    def broken(*given, **options):
        result = lint(*given, **options)
        left = tuple(f for f in result.findings if f.rule not in rules)
        return dataclasses.replace(result, findings=left, scale_invariant=())

    return broken


def all_hold(numbers):
    return all(number.holds for _, number in numbers)


def test_lint_that_misses_faults_fails_its_claims(monkeypatch):
    bias, scale, dropout = map(module_of, ("bias", "scale_invariance", "dropout"))
    pieces = (bias._changes, scale._linted, dropout._networks)
    rules = ("redundant-bias", "dropout-before-batchnorm")
    assert all(all_hold(piece()) for piece in pieces)
    for module in (bias, scale, dropout):
        monkeypatch.setattr(module, "lint", silenced(module.lint, *rules))
    assert not any(all_hold(piece()) for piece in pieces)


def test_a_wrong_fold_fails_its_claim(monkeypatch):
    folding = module_of("folding")
    right = folding.fold

    def broken(net, x):
        result = right(net, x)
        with torch.no_grad():
            next(result.model.parameters()).mul_(1 + 1e-6)
        return result

    monkeypatch.setattr(folding, "fold", broken)
    assert not claims.folding().holds


def test_recalibration_that_does_nothing_fails_its_claims(monkeypatch):
    dropout, few_shot = map(module_of, ("dropout", "few_shot"))
    monkeypatch.setattr(few_shot, "CHANNELS", 20_000)
    monkeypatch.setattr(few_shot, "_empirical_bayes", list)
    monkeypatch.setattr(dropout, "recalibrate", lambda *_: None)
    assert not all_hold(dropout._networks())
    right = few_shot.recalibrate
    monkeypatch.setattr(
        few_shot, "recalibrate", lambda model, x, *_, **__: right(model, x, "combat")
    )
    assert "best mix" in claims.few_shot().verdict


def test_plain_accumulation_is_not_exact(monkeypatch):
    accumulation = module_of("accumulation")
    batch = torch.randn(64, 8).double(), torch.arange(64) % 10
    net = accumulation._net(torch.nn.BatchNorm1d(32))
    assert accumulation._remedy(net, batch) < 1e-12

    def plain(model, batch, loss, size):
        for rows in torch.arange(64).split(size):
            (loss(model, (batch[0][rows], batch[1][rows])) * size / 64).backward()

    net.zero_grad()
    monkeypatch.setattr(accumulation, "exact", plain)
    assert accumulation._remedy(net, batch) > 1e-2


def test_a_standardization_that_is_off_fails_its_claim(monkeypatch):
    unity, right = module_of("unity"), bc.Standardize.fit_transform
    images, labels = unity._activations()
    rows = images.movedim(1, -1).reshape(-1, 8)
    assert all_hold(unity._identities(rows, labels, images))

    def off(self, *given, **options):
        return right(self, *given, **options) * (1 + 1e-9)

    monkeypatch.setattr(bc.Standardize, "fit_transform", off)
    assert not dict(unity._identities(rows, labels, images))["train"].holds


# -- what a claim is -------------------------------------------------------------------


def test_a_claim_repeats_itself_and_leaves_random_numbers_alone(found):
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            again = claims.dropout()
        assert torch.get_num_threads() == threads + 1
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.rand(1), wanted)
    assert again.measured == found["dropout"].measured


def test_unity_without_a_matrix(found):
    claim = claims.unity()
    assert claim.holds
    assert claim.measured.keys() == found["unity"].measured.keys() - {"log, arrays"}
    with pytest.raises(InputError, match="or neither"):
        claims.unity(np.ones((3, 2)))


@pytest.mark.parametrize(
    ("matrix", "batch", "words"),
    [
        (np.eye(4), "aabbb", "shape is .4, 4.*a .2., b .3."),
        (np.eye(4), "aaab", "two samples in every batch"),
        (np.ones(4), "aabb", "samples × genes"),
        (np.full((4, 2), np.nan), "aabb", "leave out these genes"),
        (np.ones((4, 2)), "aabb", "Every gene is constant in a batch"),
        (np.empty((0, 2)), "", "with a batch for each sample"),
    ],
)
def test_expression_that_cannot_be_compared_is_refused(matrix, batch, words):
    with pytest.raises(InputError, match=words):
        claims.unity(matrix, list(batch))


def test_genes_that_are_constant_in_a_batch_are_left_out():
    matrix = np.random.default_rng(0).normal(size=(12, 6))
    matrix[:4, 2] = 1.0
    unity, batch = module_of("unity"), ["a"] * 4 + ["b"] * 8
    rows, labels = unity._expression(matrix, batch)
    assert rows.shape == (12, 5)
    assert all_hold(unity._identities(rows, labels, rows[:, None, :]))


def test_a_result_is_frozen(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found["bias"].name = "another"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found["bias"].measured["output"].value = 0.0


def claim_of(*numbers):
    by_name = {str(i): number for i, number in enumerate(numbers)}
    return Claim("made_up", "A finding", "What is claimed.", by_name)


def test_a_verdict_names_what_is_off():
    assert zero("x", 1e-3, 1e-2).holds
    assert not zero("x", -1e-1, 1e-2).holds
    assert near("x", 0.9, 1, 0.2).holds
    assert not near("x", 0.9, 1, 0.05).holds
    assert not zero("x", float("nan"), 1).holds
    assert Measured("x", float("nan")).holds
    good = claim_of(zero("a", 0, 1), Measured("speed", 3.0))
    assert good.holds
    assert good.verdict == "holds: 1 of 1 numbers as expected"
    bad = claim_of(zero("a", 0, 1), near("the ratio", 2, 1, 0.1))
    assert not bad.holds
    assert bad.verdict == "does not hold: the ratio: 2, expected 1"


# -- figures ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout", "accumulation"])  # rows, and curves
def test_figures_are_legible_at_one_column(found, name):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure = found[name].figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches()
    assert width == pytest.approx(3.35)
    assert height < 8
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7
    drawn = figure.get_tightbbox(canvas.get_renderer())
    assert drawn.x0 >= -0.01
    assert drawn.x1 <= width + 0.01
    assert figure.get_suptitle().replace("\n", " ") == found[name].title


def test_a_figure_says_that_a_claim_failed():
    figure = claim_of(zero("a", 2, 1)).figure()
    assert figure.get_suptitle() == "Not confirmed: A finding"


def test_figures_open_no_window_and_change_no_style(found):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    found["few_shot"].figure()
    assert dict(mpl.rcParams) == before
    assert (
        "matplotlib.pyplot" not in sys.modules
        or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        claim_of(zero("a", 0, 1)).figure()


# -- the command -----------------------------------------------------------------------


def batchcorr(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def measured(found, monkeypatch):
    """Let the command show what was measured above, and return the list of it."""
    results = [found[name] for name in NAMES]
    monkeypatch.setattr(claims, "measure", lambda *_: iter(results))
    return results


def test_the_command_shows_every_number(measured):
    result = batchcorr("bridge")
    assert result.exit_code == 0, result.output
    lines = " ".join(result.stdout.split())
    for number, claim in enumerate(measured, start=1):
        assert f"{number} {claim.title}: holds" in lines
    values = [f"{n.value:.3g}" for claim in measured for n in claim.measured.values()]
    assert all(value in lines for value in values)
    assert "7 of 7 claims hold" in lines


def test_the_command_fails_with_a_claim(measured):
    wrong = {"output": zero("output change", 1.0, 1e-10)}
    measured[0] = dataclasses.replace(measured[0], measured=wrong)
    result = batchcorr("bridge")
    assert result.exit_code == 1
    assert "6 of 7 claims hold" in result.stdout
    assert re.search(r"output change +1 +0 ± 1e-10 +off", result.stdout)


def test_the_command_writes_figures_and_replaces_none_unasked(
    measured, tmp_path, monkeypatch
):
    for place, claim in enumerate(measured):  # few numbers are drawn fast
        few = dict(list(claim.measured.items())[:2])
        measured[place] = dataclasses.replace(claim, measured=few)
    monkeypatch.setattr("batchcorr.cli.bridge.DPI", 40)
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "3_scale_invariance.png").write_text("mine")
    refused = batchcorr("bridge", "--figures", folder)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    assert (folder / "3_scale_invariance.png").read_text() == "mine"
    assert batchcorr("bridge", "--figures", folder, "--force").exit_code == 0
    names = [f"{number}_{name}.png" for number, name in enumerate(NAMES, start=1)]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        header = (folder / name).read_bytes()[:20]
        assert header.startswith(b"\x89PNG")
        assert int.from_bytes(header[16:20]) == int(3.35 * 40)


@pytest.mark.usefixtures("measured")
def test_the_command_refuses_places_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "none" / "figures"):
        result = batchcorr("bridge", "--figures", place)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_the_command_from_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "batchcorr", "bridge"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "7 of 7 claims hold" in done.stdout

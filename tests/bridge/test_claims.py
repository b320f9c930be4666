"""The seven claims: every number of their statements, and what a claim is.

Which test shows which number (the keys are those of `claim.measured`):

1 bias -> test_bias
    output 8e-13; gradient 5e-17; LayerNorm constant 2e-15, any 2.9; GroupNorm and
    InstanceNorm 9e-16; Conv → ReLU → BN 1.2; Linear → BN on (N, L, C); lag ratio 1.0000;
    float32 2e-3 at 1e4, 0.18 at 1e6; drift of Adam 0.19, SGD 0, Adam(eps=1e-4) 2e-5
2 folding -> test_folding
    2e-15 in float64, 4e-7 in float32; speeds are reported only; families and random
    graphs are in test_fold*.py
3 scale_invariance -> test_scale_invariance, test_torch_refuses_no_eps
    2e-16, 6e-16, 3e-16; ε/a² 2e-16, naive 4e-3; growing rate 5e-15, without BN 0.145;
    angles 0.970–0.989; AdamW .183; Adam + L2 .810/.182/.0215/.0038; rows 1.0000, 3.37
4 dropout -> test_dropout
    both formulas by all masks; p if μ = 0; .497, 1.000, .405; update_bn .496;
    recalibrated 1.000
5 accumulation -> test_accumulation, test_accumulation_is_systematic
    4e-16 without BN; 3.17/.61/.36/.24/.15; .73/.32/.17/.10/.063 with standard errors
    .25/.037/.023/.016/.010; E[var], E[1/sd]; K updates; remedy 6e-16
6 few_shot -> test_few_shot
    γ², v/n, γ²v/(nγ² + v) within 1 %
7 unity -> test_unity, test_shrinkage_fades, test_logs
    4e-16, float32 3e-7, ddof 1 1e-2; InstanceNorm, AdaBN, per-domain 4e-16; eval 9e-16,
    running_var; ComBat 3e-15; .33/.28/.18/.10/.011/.001; log 1e-15, log1p .46;
    4.13 and 1.36
"""

from __future__ import annotations

import dataclasses
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
from batchcorr.bridge.claims._result import Claim, Measured, near, zero  # noqa: E402

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
            self[name] = getattr(claims, name)(*given)
            return self[name]

    return Found()


def vanish(claim, keys, bound):
    for key in keys:
        number = claim.measured[key]
        assert abs(number.value) < bound, number
        assert number.holds


def equal(claim, **expected):
    for key, (value, tolerance) in expected.items():
        assert claim.measured[key].value == pytest.approx(value, abs=tolerance), key


# -- the numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_holds(found, name):
    claim = found[name]
    assert claim.name == name
    assert claim.holds, claim.verdict
    assert claim.verdict.startswith("holds: ")


def test_bias(found):
    claim = found["bias"]
    vanish(claim, ["output"], 1e-10)
    vanish(claim, ["gradient"], 1e-12)
    vanish(claim, ["layer_norm_constant", "group_norm", "instance_norm"], 1e-13)
    equal(
        claim,
        layer_norm_any=(2.9, 0.5),
        relu_between=(1.2, 0.36),
        lag=(1, 5e-5),
        float32_1e4=(2e-3, 1.8e-3),
        float32_1e6=(0.18, 0.16),
        drift_adam=(0.19, 0.15),
        drift_adam_eps=(2e-5, 1e-4),
    )
    assert claim.measured["other_axis"].value > 1
    vanish(claim, ["drift_sgd"], 1e-7)


def test_folding(found):
    claim = found["folding"]
    families = [key for key in claim.measured if key.startswith("fold, ")]
    assert len(families) == 11
    vanish(claim, ["affine", "pair", *families], 1e-12)
    vanish(claim, ["float32"], 1e-5)
    assert claim.measured["left"].value == 0
    assert claim.measured["kept"].value == 3
    speeds = [key for key in claim.measured if key.startswith("speed, ")]
    assert len(speeds) == 4
    assert all(claim.measured[key].expected is None for key in speeds)


def test_scale_invariance(found):
    claim = found["scale_invariance"]
    vanish(claim, ["output", "gradient", "orthogonal", "eps_law"], 1e-14)
    vanish(claim, ["growing_rate"], 1e-13)
    equal(
        claim,
        eps_naive=(4e-3, 2e-3),
        growing_rate_plain=(0.145, 0.03),
        **{f"angle_{i}": (1, 0.05) for i in range(1, 7)},
        adamw=(0.183, 0.005),
        **{"adam_0.1": (0.810, 3e-3), "adam_1": (0.182, 3e-3)},
        adam_10=(0.0215, 3e-3),
        adam_100=(0.0038, 3e-3),
        rows_adamw=(1, 5e-5),
        rows_adam=(3.37, 0.2),
    )
    vanish(claim, ["adamw_same"], 1e-6)


def test_torch_refuses_no_eps():
    norm = torch.nn.BatchNorm1d(2, eps=0.0)
    with pytest.raises(ValueError, match="eps must be positive"):
        norm(torch.randn(3, 2))


def test_dropout(found):
    claim = found["dropout"]
    vanish(claim, ["unit", "weighted"], 1e-14)
    equal(
        claim,
        mean_zero=(0.5, 1e-14),
        before=(0.497, 0.01),
        after=(1, 0.005),
        between=(0.405, 0.01),
        update_bn=(0.496, 0.01),
        recalibrated=(1, 0.005),
    )


def test_accumulation(found):
    claim = found["accumulation"]
    vanish(claim, [f"without_{norm}" for norm in ("none", "LayerNorm")], 1e-14)
    vanish(claim, ["without_GroupNorm", "remedy"], 1e-14)
    for m, one in zip((2, 4, 8, 16, 32), (3.17, 0.61, 0.36, 0.24, 0.15), strict=True):
        equal(claim, **{f"one_{m}": (one, 0.3 * one)})
        equal(claim, **{f"variance_{m}": (1 - 1 / m, 0.005)})
    for m, inverse in zip((4, 8, 16, 32), (1.596, 1.204, 1.088, 1.041), strict=True):
        equal(claim, **{f"inverse_{m}": (inverse, 0.01)})
    equal(claim, running=(1 - 0.9**16, 1e-10))


def test_accumulation_is_systematic(found):
    claim = found["accumulation"]
    wanted = {2: (0.73, 0.25), 4: (0.32, 0.037), 8: (0.17, 0.023), 16: (0.10, 0.016)}
    for m, (mean, chance) in (wanted | {32: (0.063, 0.010)}).items():
        equal(claim, **{f"mean_{m}": (mean, 0.3 * mean)})
        equal(claim, **{f"chance_{m}": (chance, 0.4 * chance)})
        at = {key: claim.measured[f"{key}_{m}"].value for key in ("mean", "chance")}
        assert at["mean"] > 3 * at["chance"]


def test_few_shot(found):
    claim, gamma2, v = found["few_shot"], 0.25, 1.0
    for n in (1, 2, 4, 8, 16, 32):
        best = gamma2 * v / (n * gamma2 + v)
        equal(
            claim,
            **{
                f"source_{n}": (gamma2, 0.01 * gamma2),
                f"support_{n}": (v / n, 0.01 * v / n),
                f"mix_{n}": (best, 0.01 * best),
                f"bayes_{n}": (1, 0.01),
            },
        )
        combat = claim.measured[f"combat_{n}"].value
        assert best < 1.005 * combat
        assert combat < claim.measured[f"support_{n}"].value
    assert claim.measured["combat_16"].value < 1.02 * (gamma2 * v / (16 * gamma2 + v))


@pytest.mark.parametrize("where", ["activations", "arrays"])
def test_unity(found, where):
    claim = found["unity"]
    keys = ["train", "eval", "running_var", "instance", "domain", "adabn"]
    keys += ["domain_layer", "combat"]
    vanish(claim, [f"{key}, {where}" for key in keys], 1e-12)
    vanish(claim, ["train_float32"], 1e-5)
    equal(claim, train_ddof_1=(1e-2, 5e-3))


def test_shrinkage_fades(found):
    claim = found["unity"]
    wanted = {3: 0.33, 10: 0.28, 30: 0.18, 100: 0.10, 1000: 0.011, 10_000: 0.001}
    values = [claim.measured[f"shrinkage_{n}"].value for n in wanted]
    assert values == sorted(values, reverse=True)
    np.testing.assert_allclose(values, list(wanted.values()), rtol=0.5)
    equal(claim, shrinkage_rate=(10, 2))


def test_logs(found):
    claim = found["unity"]
    vanish(claim, ["log, simulated", "log, arrays"], 1e-14)
    equal(
        claim, log1p=(0.46, 0.02), variance_raw=(4.13, 0.2), variance_log=(1.36, 0.05)
    )


# -- what a claim is -------------------------------------------------------------------


def test_a_claim_repeats_itself_and_leaves_random_numbers_alone(found):
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    again = claims.dropout()
    assert torch.equal(torch.rand(1), wanted)
    assert again.measured == found["dropout"].measured


def test_claims_leave_settings_alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        claims.dropout()
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


def test_unity_without_a_matrix(found):
    claim = claims.unity()
    assert claim.holds
    assert not [key for key in claim.measured if "arrays" in key]
    assert claim.measured.keys() < found["unity"].measured.keys()
    with pytest.raises(InputError, match="or neither"):
        claims.unity(np.ones((3, 2)))


def test_a_result_is_frozen(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found["bias"].name = "another"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found["bias"].measured["output"].value = 0.0


def claim_of(*numbers):
    return Claim(
        "made_up",
        "A finding",
        "What is claimed.",
        {str(i): number for i, number in enumerate(numbers)},
        {},
        lambda figure, _: figure.subplots().plot([0, 1]),
    )


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


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_legible_at_one_column(found, name):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure = found[name].figure()
    width, height = figure.get_size_inches()
    assert width == pytest.approx(3.35)
    assert height < 5
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7
    drawn = figure.get_tightbbox(renderer)
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


def test_measuring_needs_no_matplotlib():
    code = (
        "import sys; from batchcorr.bridge import claims; claims.dropout(); "
        "sys.exit('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from batchcorr.cli import app; "
        "app(['bridge'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"Error: .*pip install \"batchcorr\[torch\]\"\n", done.stderr)


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


@pytest.mark.usefixtures("measured")
def test_the_command_writes_figures(tmp_path):
    folder = tmp_path / "figures"
    assert batchcorr("bridge", "--figures", folder).exit_code == 0
    names = [f"{number}_{name}.png" for number, name in enumerate(NAMES, start=1)]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        header = (folder / name).read_bytes()[:20]
        assert header.startswith(b"\x89PNG")
        assert int.from_bytes(header[16:20]) == int(3.35 * 300)
    again = batchcorr("bridge", "--figures", folder)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert batchcorr("bridge", "--figures", folder, "--force").exit_code == 0


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

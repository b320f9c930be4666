"""How often a test finds what is not there, simulated: the tables of docs/trust.md.

python benchmarks/trust.py                      some minutes
python benchmarks/trust.py --designs 10         does it run?
python benchmarks/trust.py --figure trust.png   also draws predicted beside simulated

Null data: normal values, batch means that differ by feature, and batch variances that are
equal or not. A group that means nothing is kept, corrected and tested without batch; beside
it stands the test with batch in the model. `predicted` is what `tl.audit` says beforehand,
from the design and the variances it finds in the data.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

import batchcorr as bc
from batchcorr.errors import silenced
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.null_calibration import ordinary_p_values
from batchcorr.estimators.problem import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = {
    "combat": bc.ComBat,
    "standardize": bc.Standardize,
    "remove_batch_effect": bc.RemoveBatchEffect,
}
ANALYSES = (*METHODS, "one_step")
ALPHA, EFFECT = 0.05, 0.2


class Study(NamedTuple):
    """Batch, group and standard deviation of each sample."""

    batch: NDArray[np.int64]
    group: NDArray[np.int64]
    deviation: NDArray[np.float64]

    @property
    def equal(self) -> bool:
        return len(np.unique(self.deviation)) == 1


def random_study(rng: np.random.Generator) -> Study:
    """Two to six batches, twelve to a hundred samples, any balance, any variances."""
    while True:
        n_batches = int(rng.integers(2, 7))
        sizes = rng.integers(4, 34, n_batches)
        batch = np.repeat(np.arange(n_batches), sizes)
        share = rng.beta(1, 1, n_batches)
        group = (rng.random(len(batch)) < share[batch]).astype(int)
        cells = np.array(
            [np.bincount(group[batch == b], minlength=2) for b in range(n_batches)]
        )
        told = (cells.min(axis=1) > 0).any() and cells.sum(axis=0).min() >= 4
        if 12 <= len(batch) <= 100 and told:
            break
    deviation = (
        np.exp(rng.uniform(-0.7, 0.7, n_batches)) if rng.random() < 0.5 else None
    )
    ones = np.ones(n_batches)
    return Study(batch, group, (ones if deviation is None else deviation)[batch])


def made_study(n_batches: int, *, balanced: bool, equal: bool) -> Study:
    """Batches of twelve: six treated in each, or two and ten in turn."""
    treated = [6] * n_batches if balanced else [2, 10] * n_batches
    group = np.concatenate([np.arange(12) < k for k in treated[:n_batches]]).astype(int)
    batch = np.repeat(np.arange(n_batches), 12)
    deviation = np.ones(n_batches) if equal else np.linspace(0.6, 1.6, n_batches)
    return Study(batch, group, deviation[batch])


def values(
    study: Study, n_features: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Null data: batches differ in mean and variance, groups in nothing."""
    n_batches = int(study.batch.max()) + 1
    x = rng.normal(size=(len(study.batch), n_features)) * study.deviation[:, None]
    x *= np.sqrt(rng.gamma(8, 1 / 8, n_features))  # features differ in variance
    return x + rng.normal(size=(n_batches, n_features))[study.batch]


def annotated(study: Study, x: NDArray[np.float64]) -> ad.AnnData:
    obs = pd.DataFrame(
        {
            "batch": [f"batch{b}" for b in study.batch],
            "group": np.array(["a", "b"])[study.group],
        },
        index=[f"s{k}" for k in range(len(x))],
    )
    return ad.AnnData(x, obs=obs)


def rates(study: Study, n_features: int, rng: np.random.Generator) -> dict[str, float]:
    """Simulated rates of every analysis; predicted ones; and shares of an effect, both ways.

    The one step takes variances for unequal where they are; what is predicted of it is for
    one variance, "one_step pooled".
    """
    x = values(study, n_features, rng)
    adata = annotated(study, x)
    problem = Problem.of(
        x, Labels(study.batch, adata.obs[["group"]].reset_index(drop=True))
    )
    moved = Problem.of(x + EFFECT * study.group[:, None], Labels(study.batch))
    both = Problem.of(
        x + EFFECT * study.group[:, None],
        Labels(study.batch, adata.obs[["group"]].reset_index(drop=True)),
    )
    contrast, found = np.eye(1), {}
    with silenced():
        predicted = bc.tl.audit(adata, "batch", test="group", alpha=ALPHA).predicted
        for name, kind in METHODS.items():
            fitted = kind().fit_moments(problem.moments, problem.metadata)
            p = ordinary_p_values(_together(fitted, problem), contrast)
            found[name] = float((p < ALPHA).mean())
            with_it, without = (
                _effect(
                    kind().fit_moments(part.moments.select([]), moved.metadata), part
                )
                for part in (both, problem)
            )
            found[f"kept {name}"] = float((with_it - without).mean() / EFFECT)
            found[f"predicted kept {name}"] = float(predicted.loc[name, "effect_kept"])
        for name, equal in (("one_step", study.equal), ("one_step pooled", True)):
            table = bc.tl.differential(adata, "batch", "group", equal_variances=equal)
            found[name] = float((table["p_value"] < ALPHA).mean())
    for analysis in ANALYSES:
        found[f"predicted {analysis}"] = float(
            predicted.loc[analysis, "false_positive_rate"]
        )
    return found


def _together(fitted: Any, problem: Problem) -> Any:
    """Moments of the corrected values, of all batches as one."""
    after = fitted.correction_.moments(problem.moments, 1)
    return after.collapse([0] * after.n_batches, 1)


def _effect(fitted: Any, problem: Problem) -> NDArray[np.float64]:
    """The group's effect in values that were corrected without it."""
    sums = problem.moments
    none = np.zeros((1, sums.n_features))
    after = replace(fitted.correction_, coefficients=none).moments(sums, 1)
    whole = after.collapse([0] * after.n_batches, 1)
    return whole.cross[0, 0] / whole.gram[0, 0, 0, 0]


def table_of_designs(n_features: int) -> None:
    rng = np.random.default_rng(1)
    print(f"\n| batches | groups | variances | {' | '.join(ANALYSES)} |")
    print("|---|---|---|" + "---|" * len(ANALYSES))
    worst = 0.0
    for n_batches in (2, 3, 4, 6):
        for balanced in (True, False):
            for equal in (True, False):
                study = made_study(n_batches, balanced=balanced, equal=equal)
                found = rates(study, n_features, rng)
                cells = [
                    f"{found[analysis]:.1%} ({found[f'predicted {analysis}']:.1%})"
                    for analysis in ANALYSES
                ]
                kind = "even" if balanced else "uneven"
                like = "equal" if equal else "unequal"
                print(
                    f"| {n_batches} | {kind} | {like} | {' | '.join(cells)} |",
                    flush=True,
                )
                worst = max(worst, abs(found["one_step"] - ALPHA))
    print(f"\nSimulated (predicted). One step: at most {worst:.1%} from {ALPHA:.0%}.")


def accuracy(n_designs: int, n_features: int) -> pd.DataFrame:
    """What `audit` predicts beside what is simulated."""
    rng, rows = np.random.default_rng(2), []
    for _ in range(n_designs):
        study = random_study(rng)
        rows.append(rates(study, n_features, rng) | {"equal": study.equal})
    found = pd.DataFrame(rows)
    off = (found["one_step"] - ALPHA).abs()
    found["one_step"] = found["one_step pooled"]
    heads = ["rate within .05", "median error", "largest"]
    heads += ["kept within .05, equal variances", "largest", "… unequal", "largest"]
    print(f"\n{n_designs} random designs:\n\n| method | {' | '.join(heads)} |")
    print("|---|" + "---|" * len(heads))
    for analysis in ANALYSES:
        error = (found[analysis] - found[f"predicted {analysis}"]).abs()
        cells = [_within(error), f"{error.median():.3f}", f"{error.max():.3f}"]
        for equal in (True, False) if analysis in METHODS else ():
            part = found[found["equal"] == equal]
            error = (
                part[f"kept {analysis}"] - part[f"predicted kept {analysis}"]
            ).abs()
            cells += [_within(error), f"{error.max():.3f}"]
        cells += ["–"] * (len(heads) - len(cells))
        print(f"| {analysis} | {' | '.join(cells)} |")
    print(
        f"\nOne step, variances true to the data: within .01 of {ALPHA:.0%} in "
        f"{(off <= 0.01).mean():.1%}, at most {off.max():.1%} from it."
    )
    return found


def _within(error: pd.Series) -> str:
    return f"{(error <= 0.05).mean():.1%}"


def calibration(n_seeds: int) -> None:
    """Which designs `null_calibration` flags, beside the rate on many features."""
    counts = {"over .10": [0, 0], "under .06": [0, 0], "between": [0, 0]}
    for seed in range(n_seeds):
        rng = np.random.default_rng(100 + seed)
        for uneven in (False, True):
            study = random_study(rng)
            group = np.resize([0, 1], len(study.batch))
            if (
                uneven
            ):  # one in eight is of the other group, in every second batch turned
                group = (np.arange(len(group)) % 8 == 0) ^ (study.batch % 2)
            study = study._replace(group=group.astype(int))
            method = list(METHODS)[seed % 3]
            true = float(np.mean([rates(study, 4000, rng)[method] for _ in range(3)]))
            adata = annotated(study, values(study, 400, rng))
            flagged = bc.tl.null_calibration(
                adata, "batch", "group", method=method
            ).flagged
            kind = (
                "over .10" if true > 0.1 else "under .06" if true < 0.06 else "between"
            )
            counts[kind][0] += flagged
            counts[kind][1] += 1
    print("\nnull_calibration, 400 features, 50 permutations:\n")
    print("| true rate | designs | flagged |\n|---|---|---|")
    for kind, (flagged, total) in counts.items():
        print(f"| {kind} | {total} | {flagged} |")


def draw(found: pd.DataFrame, path: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), sharex=True, sharey=True)
    for axis, analysis in zip(axes, ANALYSES, strict=True):
        axis.axhline(ALPHA, color="0.8", lw=0.8)
        axis.plot([0, 0.42], [0, 0.42], color="0.6", lw=0.8)
        axis.scatter(
            found[f"predicted {analysis}"], found[analysis], s=7, color="#0072b2", lw=0
        )
        axis.set(title=analysis.replace("_", " "), xlabel="predicted", aspect="equal")
    axes[0].set_ylabel("simulated rate of false positives")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", type=int, default=200)
    parser.add_argument("--features", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--figure", default=None)
    given = parser.parse_args()
    table_of_designs(2 * given.features)
    found = accuracy(given.designs, given.features)
    if given.figure:
        draw(found, given.figure)
    calibration(given.seeds)


if __name__ == "__main__":
    main()

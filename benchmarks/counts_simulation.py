"""Does correcting counts help? Differential expression with known truth.

python benchmarks/counts_simulation.py              20 seeds, about 5 minutes
python benchmarks/counts_simulation.py --seeds 2    does it run?
python benchmarks/counts_simulation.py --only balanced unbalanced counts real null

Simulated as in Zhang et al. (2020): 20 samples in two batches and two groups, negative
binomial with dispersion 0.15 in the first batch; the second batch multiplies half of the
genes and divides the others. Every approach is judged by the same t-test on log CPM, and
those that give counts by a test made for counts as well (`counts`).
"""

from __future__ import annotations

import argparse
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import measure
import numpy as np
import pandas as pd
from measure import table
from scipy import stats

import batchcorr as bc
from batchcorr.models.counts.dispersion import (
    GRID,
    maximize_spline,
    profile_likelihoods,
)
from batchcorr.models.counts.regression import fit_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

N_GENES = 1500
N_CHANGED = 150
"""Half of them up, half down."""

GROUP_FOLD = 2.0
DISPERSION = 0.15
MEAN_FOLDS = (1.0, 1.5, 2.0, 3.0)
DISPERSION_FOLDS = (1.0, 2.0, 3.0, 4.0)
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of group A's samples in batch 1, and of group B's in batch 2."""

COMMON = 2.0 ** np.arange(-6, 2.01, 0.25)
"""Common dispersions that are tried."""

BOTTOMLY = Path(__file__).parents[2] / "shared" / "data" / "bottomly.h5ad"


class Data(NamedTuple):
    """Counts, samples × genes, and the labels of samples."""

    counts: NDArray[np.int64]
    batch: NDArray[Any]
    group: NDArray[Any]


def simulate(
    seed: int, mean_fold: float, dispersion_fold: float, share: float = 0.5
) -> tuple[Data, NDArray[np.bool_]]:
    """Return 20 samples, and which genes differ between groups."""
    rng = np.random.default_rng(seed)
    few, many = round(10 * (1 - share)), round(10 * share)
    group = np.repeat(["A", "B", "A", "B"], [many, few, few, many])
    batch = np.repeat([1, 2], 10)
    log_mu = rng.normal(np.log(100), 1.2, N_GENES) + rng.normal(0, 0.2, (20, 1))
    up = rng.random(N_GENES) < 0.5
    log_mu[batch == 2] += np.where(up, 0.5, -0.5) * np.log(mean_fold)
    log_mu[batch == 1] -= np.where(up, 0.5, -0.5) * np.log(mean_fold)
    change = np.zeros(N_GENES)
    places = rng.permutation(N_GENES)[:N_CHANGED]
    change[places] = np.resize([1, -1], N_CHANGED) * np.log(GROUP_FOLD)
    log_mu[group == "B"] += change
    phi = DISPERSION * np.where(batch == 2, dispersion_fold, 1.0)[:, None]
    counts = rng.poisson(np.exp(log_mu) * rng.gamma(1 / phi, phi, log_mu.shape))
    seen = (counts > 0).any(axis=0)
    return Data(counts[:, seen], batch, group), change[seen] != 0


# -- tests -----------------------------------------------------------------------------


def log_cpm(counts: NDArray[Any]) -> NDArray[np.float64]:
    """log2 CPM, TMM libraries, prior count 2, as edgeR's users take them."""
    logs = bc.LogNormalize("tmm", prior_count=2).fit_transform(counts.astype(float))
    return np.asarray(logs)


def p_values(
    y: NDArray[np.float64], group: Any, batch: Any = None, *, weighted: bool = False
) -> NDArray[Any]:
    """Return p of the group's t-test in a linear model of every gene.

    Weighted: samples weigh by one over their batch's variance, the mean over genes.
    """
    columns = [np.ones(len(y)), group == group[-1]]
    if batch is not None:
        columns += [batch == level for level in np.unique(batch)[1:]]
    design = np.column_stack(columns).astype(float)
    spare = len(y) - design.shape[1]
    if weighted:
        spread = (_fit(design, y)[1] ** 2).mean(axis=1)
        inner = np.einsum(
            "ij,jk,ik->i", design, np.linalg.inv(design.T @ design), design
        )
        for level in np.unique(batch):
            rows = batch == level
            spread[rows] = spread[rows].sum() / (1 - inner[rows]).sum()
        weight = np.sqrt(spread.mean() / spread)[:, None]
        design, y = weight * design, weight * y
    beta, residuals = _fit(design, y)
    own = np.linalg.inv(design.T @ design)[1, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = beta[1] / np.sqrt((residuals**2).sum(axis=0) / spare * own)
    return np.nan_to_num(2 * stats.t.sf(np.abs(t), spare), nan=1.0)


def _fit(design: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return coefficients and residuals of least squares."""
    beta = np.linalg.solve(design.T @ design, design.T @ y)
    return beta, y - design @ beta


def voom(data: Data) -> NDArray[Any]:
    """Return p of the group by `tl.differential` on the counts as they were."""
    obs = pd.DataFrame({"batch": data.batch.astype(str), "group": data.group})
    adata = ad.AnnData(data.counts.astype(float), obs=obs.set_index(obs.index.map(str)))
    found = bc.tl.differential(adata, "batch", "group", voom=True)
    return np.asarray(found.loc[adata.var_names, "p_value"])


def likelihood_ratio(
    counts: NDArray[Any], group: Any, batch: Any = None
) -> NDArray[Any]:
    """Return p of the group in a negative-binomial regression, as edgeR's glmLRT.

    TMM libraries; dispersions by edgeR's weighted likelihood, ten degrees of freedom of
    which are the mean of all genes (estimateGLMTagwiseDisp at a common dispersion).
    """
    y = np.ascontiguousarray(counts.T, dtype=float)
    size = counts.sum(axis=1)
    offset = np.log(size * bc.normalization_factors(counts.astype(float), "tmm"))
    tested = (group == group[-1]).astype(float)[:, None]
    others = np.zeros((len(size), 0))
    if batch is not None:
        levels = np.unique(batch)[1:]
        others = np.column_stack([batch == level for level in levels]).astype(float)
    z = np.hstack([tested, others])
    total = [profile_likelihoods(y, z, offset, np.array([d])).sum() for d in COMMON]
    common = COMMON[int(np.argmax(total))]
    profile = profile_likelihoods(y, z, offset, common * 2**GRID)
    weight = 10 / (len(size) - z.shape[1] - 1)
    phi = common * 2 ** maximize_spline(profile + weight * profile.mean(axis=0))
    codes, r = np.zeros(len(size), np.int32), 1 / phi[:, None]
    height = []
    for columns in (z, others):
        beta = fit_features(y, codes, columns, offset, phi[:, None])
        mu = np.exp(offset + beta[:, :1] + beta[:, 1:] @ columns.T)
        height.append(stats.nbinom.logpmf(y, r, r / (r + mu)).sum(axis=1))
    return np.asarray(stats.chi2.sf(2 * (height[0] - height[1]), 1))


def called(p: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a gene is called at a false discovery rate of 5 % (Benjamini–Hochberg)."""
    return stats.false_discovery_control(p) < 0.05


# -- approaches: the values to test, and whether batch is in the test's model ----------


def _kept(data: Data) -> pd.DataFrame:
    return pd.DataFrame({"group": data.group})


def uncorrected(data: Data) -> NDArray[Any]:
    return log_cpm(data.counts)


def combat(data: Data) -> NDArray[Any]:
    logs = log_cpm(data.counts)
    return bc.ComBat().fit_transform(logs, batch=data.batch, covariates=_kept(data))


def linear(data: Data) -> NDArray[Any]:
    logs = log_cpm(data.counts)
    return bc.RemoveBatchEffect().fit_transform(
        logs, batch=data.batch, covariates=_kept(data)
    )


def counts_of(data: Data, reference: str | None = None) -> NDArray[Any]:
    """Counts that ComBat-seq, or ComBat-ref, makes of the data, keeping the group."""
    model = bc.ComBatSeq(reference=reference)
    found = model.fit_transform(data.counts, batch=data.batch, covariates=_kept(data))
    return np.asarray(found)


def seq_keeping(data: Data) -> NDArray[Any]:
    return log_cpm(counts_of(data))


def seq_blind(data: Data) -> NDArray[Any]:
    return log_cpm(bc.ComBatSeq().fit_transform(data.counts, batch=data.batch))


def seq_reference(data: Data) -> NDArray[Any]:
    return log_cpm(counts_of(data, "auto"))


class Approach(NamedTuple):
    """How values are corrected, and whether batch is in the test's model and weights."""

    correct: Callable[[Data], NDArray[Any]]
    batch_in_model: bool = False
    weighted: bool = False

    def test(self, y: NDArray[Any], data: Data) -> NDArray[Any]:
        """Return p values."""
        batch = data.batch if self.batch_in_model else None
        return p_values(y, data.group, batch, weighted=self.weighted)


APPROACHES = {
    "raw": Approach(uncorrected),
    "batch in the model": Approach(uncorrected, batch_in_model=True),
    "… and weights by batch": Approach(uncorrected, batch_in_model=True, weighted=True),
    "log → ComBat": Approach(combat),
    "log → linear": Approach(linear),
    "ComBat-seq": Approach(seq_keeping),
    "ComBat-seq, no group": Approach(seq_blind),
    "ComBat-ref": Approach(seq_reference),
}


def tested(data: Data) -> dict[str, NDArray[Any]]:
    """Return the p values of every approach."""
    return {
        name: approach.test(approach.correct(data), data)
        for name, approach in APPROACHES.items()
    }


def tested_as_counts(data: Data) -> dict[str, NDArray[Any]]:
    """Return the p values of a test for counts beside those of two on logarithms."""
    return {
        "t-test of logs, batch in the model": p_values(
            uncorrected(data), data.group, data.batch
        ),
        "voom, batch in the model": voom(data),
        "counts, batch in the model": likelihood_ratio(
            data.counts, data.group, data.batch
        ),
        "ComBat-seq, counts": likelihood_ratio(counts_of(data), data.group),
        "ComBat-ref, counts": likelihood_ratio(counts_of(data, "auto"), data.group),
    }


# -- simulated -------------------------------------------------------------------------


def rates(
    settings: Sequence[dict[str, float]],
    seeds: int,
    tests: Callable[[Data], dict[str, NDArray[Any]]] = tested,
) -> dict[str, NDArray[Any]]:
    """Return FPR, false discoveries, TPR, power by approach: (settings, 4, seeds)."""
    result: dict[str, NDArray[Any]] = {}
    for i, setting in enumerate(settings):
        for seed in range(seeds):
            data, changed = simulate(seed, **setting)
            for name, p in tests(data).items():
                hits = called(p)
                result.setdefault(name, np.empty((len(settings), 4, seeds)))
                result[name][i, :, seed] = (
                    np.mean(p[~changed] < 0.05),
                    np.sum(hits & ~changed) / max(1, np.sum(hits)),
                    np.mean(hits[changed]),
                    np.mean(p[changed] < np.quantile(p[~changed], 0.01)),
                )
    return {name: 100 * found for name, found in result.items()}


WORDS = {
    0: "false positives at p < 0.05 (should be 5) / false among those called at FDR 5 % "
    "(should be up to 5)",
    2: "true positives at FDR 5 % / true positives where 1 % of the unchanged genes "
    "pass, which needs the truth and compares rankings alone",
}
"""What `rates` holds, from which place on."""


def _show(
    labels: Sequence[Sequence[str]],
    header: Sequence[str],
    by_name: dict[str, NDArray[Any]],
) -> None:
    found = np.stack(list(by_name.values()), axis=1)
    means = found.mean(axis=3)
    error = found.std(axis=3, ddof=1).max(axis=(0, 1)) / np.sqrt(found.shape[3])
    for first, words in WORDS.items():
        rows = [
            [*label, *(f"{cell[first]:.1f} / {cell[first + 1]:.0f}" for cell in row)]
            for label, row in zip(labels, means, strict=True)
        ]
        table([*header, *by_name], rows)
        print(
            f"%: {words}. Means over {found.shape[3]} seeds, standard errors at most "
            f"{error[first]:.1f} / {error[first + 1]:.1f}."
        )


def balanced(options: argparse.Namespace) -> None:
    """Both groups equally in both batches; folds of means and dispersions."""
    settings = [
        {"mean_fold": mean, "dispersion_fold": dispersion}
        for mean in MEAN_FOLDS
        for dispersion in DISPERSION_FOLDS
    ]
    labels = [[f"{s['mean_fold']:g}", f"{s['dispersion_fold']:g}"] for s in settings]
    _show(labels, ["mean fold", "dispersion fold"], rates(settings, options.seeds))


def unbalanced(options: argparse.Namespace) -> None:
    """Group and batch associated; mean fold 2, dispersion fold 2."""
    settings = [
        {"mean_fold": 2.0, "dispersion_fold": 2.0, "share": share} for share in SHARES
    ]
    labels = [[f"{share:.0%}"] for share in SHARES]
    _show(labels, ["A in batch 1"], rates(settings, options.seeds))


def counts(options: argparse.Namespace) -> None:
    """The same by a test made for counts; mean fold 2, balanced, then 80 %."""
    settings = [
        {"mean_fold": 2.0, "dispersion_fold": fold, "share": share}
        for share in (0.5, 0.8)
        for fold in DISPERSION_FOLDS
    ]
    labels = [[f"{s['share']:.0%}", f"{s['dispersion_fold']:g}"] for s in settings]
    found = rates(settings, options.seeds, tested_as_counts)
    _show(labels, ["A in batch 1", "dispersion fold"], found)


# -- real ------------------------------------------------------------------------------


def _expressed(data: Data) -> Data:
    """Leave genes with 10 counts or more in as many samples as the smaller group."""
    smaller = np.unique(data.group, return_counts=True)[1].min()
    return data._replace(
        counts=data.counts[:, (data.counts >= 10).sum(axis=0) >= smaller]
    )


def pasilla() -> Data | None:
    if find_spec("inmoose") is None:
        print("pasilla: skipped, inmoose is not installed.")
        return None
    from inmoose.data.pasilla import pasilla as read

    adata = read()
    return Data(
        np.asarray(adata.X, dtype=np.int64),
        adata.obs["type"].to_numpy(dtype=str),
        adata.obs["condition"].to_numpy(dtype=str),
    )


def bottomly(path: Path) -> Data | None:
    if not path.exists():
        print(f"bottomly: skipped, there is no {path}.")
        return None
    adata = ad.read_h5ad(path)
    return Data(
        adata.X.toarray().astype(np.int64),
        adata.obs["batch"].to_numpy(dtype=str),
        adata.obs["condition"].to_numpy(dtype=str),
    )


def real(options: argparse.Namespace) -> None:
    """Genes called at FDR 5 %, and what batch and group explain, on real counts."""
    for name, whole in (
        ("pasilla", pasilla()),
        ("bottomly", bottomly(options.bottomly)),
    ):
        if whole is None:
            continue
        data = _expressed(whole)
        reference: NDArray[Any] | None = None
        rows = []
        for title, approach in APPROACHES.items():
            y = np.asarray(approach.correct(data), dtype=float)
            hits = called(approach.test(y, data))
            if title == "batch in the model":
                reference = hits
            share = bc.metrics.variance_explained(y, data.batch, covariates=_kept(data))
            left = [share.batch, share.batch_beyond_covariates, share.covariates]
            shown = (
                ["", "", ""] if approach.batch_in_model else [f"{v:.1%}" for v in left]
            )
            rows.append([title, hits, *shown])
        assert reference is not None
        for row in rows:
            row[1:2] = [f"{row[1].sum():,}", f"{(row[1] & reference).sum():,}"]
        n, n_genes = data.counts.shape
        print(
            f"\n{name}: {n} × {n_genes:,} expressed genes of {whole.counts.shape[1]:,}"
        )
        header = [
            "", "called", "also with batch in the model", "batch", "batch beyond group",
            "group within batches",
        ]  # fmt: skip
        table(header, rows)


def null(options: argparse.Namespace) -> None:
    """Mock groups in one strain of bottomly, drawn anew by seed: nothing is true."""
    whole = bottomly(options.bottomly)
    if whole is None:
        return
    own = whole.group == "DBA/2J"
    counts, batch = whole.counts[own], whole.batch[own]
    sizes = np.unique(batch, return_counts=True)[1]
    rows = []
    for label, in_a in (("balanced", (2, 2, 2)), ("unbalanced", (3, 2, 1))):
        found = np.empty((options.seeds, len(APPROACHES), 2))
        for seed in range(options.seeds):
            rng = np.random.default_rng(seed)
            group = np.empty(len(batch), dtype="<U1")
            for level, size, k in zip(np.unique(batch), sizes, in_a, strict=True):
                group[batch == level] = rng.permutation(["A"] * k + ["B"] * (size - k))
            data = _expressed(Data(counts, batch, group))
            for j, p in enumerate(tested(data).values()):
                found[seed, j] = np.mean(p < 0.05), called(p).sum()
        cells = found.mean(axis=0) * [100, 1]
        split = ", ".join(f"{k} of {n}" for k, n in zip(in_a, sizes, strict=True))
        rows.append([f"{label} ({split})", *(f"{a:.1f} / {b:,.1f}" for a, b in cells)])
    print(
        f"{sum(sizes)} samples, {data.counts.shape[1]:,} genes, {options.seeds} draws."
    )
    table(["A in exp4, exp6, exp7", *APPROACHES], rows)
    print("Cells: genes with p < 0.05 in % (should be 5) / genes called at FDR 5 %.")


ITEMS = {
    "balanced": balanced,
    "unbalanced": unbalanced,
    "counts": counts,
    "real": real,
    "null": null,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--bottomly", type=Path, default=BOTTOMLY)
    parser.add_argument("--only", nargs="+", choices=ITEMS, default=[*ITEMS])
    options = parser.parse_args()
    print(measure.machine(["batchcorr", "numpy", "scipy", "inmoose"]))
    for name in options.only:
        print(f"\n## {name}: {ITEMS[name].__doc__}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bc.errors.BatchCorrWarning)
            ITEMS[name](options)


if __name__ == "__main__":
    main()

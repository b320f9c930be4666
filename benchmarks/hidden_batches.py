"""Tests when nobody wrote the batch down: with surrogate variables, and without.

    python benchmarks/hidden_batches.py            # 30 seeds, 2 minutes on one core

Logs of 1,000 features and 40 samples of two groups; 100 features differ between groups (by
one standard deviation), 400 by a hidden batch, 40 of them by both. The batch goes with the
group not at all, somewhat (14 of 20 and 6 of 20) or strongly (18 and 2).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

import batchcorr as bc

if TYPE_CHECKING:
    from collections.abc import Iterator

N, FEATURES = 40, 1000
IN_BATCH = {"not at all": (10, 10), "somewhat": (14, 6), "strongly": (18, 2)}


def simulate(seed: int, in_batch: tuple[int, int]) -> ad.AnnData:
    """Logs with a group in `obs`, and a batch that `obs` would not have in life."""
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1], N // 2)
    batch = np.concatenate([np.arange(N // 2) < count for count in in_batch])
    own, hidden = np.zeros(FEATURES), np.zeros(FEATURES)
    own[:100] = rng.choice([-1, 1], 100)
    hidden[60:460] = rng.normal(0, 1, 400)
    x = 8 + rng.normal(0, 1, (N, FEATURES)) * rng.gamma(8, 1 / 8, FEATURES)
    x += group[:, None] * own + batch[:, None] * hidden
    obs = pd.DataFrame(
        {"group": np.where(group, "b", "a"), "batch": np.where(batch, "y", "x")},
        index=[f"s{i}" for i in range(N)],
    )
    adata = ad.AnnData(x, obs=obs)
    adata.var["differs"] = own != 0
    adata.var["control"] = np.arange(FEATURES) >= 440  # 20 of them follow the batch
    return adata


def tests(adata: ad.AnnData) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """Each way, R² of the batch on the columns it found, and its table of tests."""
    yield "nothing", np.nan, bc.tl.differential(adata, None, "group")
    ways = {
        "sva": {"covariates": "group"},
        "ruvg, 2": {"method": "ruvg", "n_variables": 2, "controls": "control"},
        "ruvr, 2": {"method": "ruvr", "n_variables": 2, "covariates": "group"},
    }
    for name, options in ways.items():
        columns = bc.tl.surrogate_variables(adata, **options).columns_
        given = columns if columns.shape[1] else None
        share = share_of(adata.obs["batch"], columns)
        table = bc.tl.differential(adata, None, "group", covariates=given)
        yield name, share, table
    yield "the batch", 1.0, bc.tl.differential(adata, "batch", "group")


def share_of(labels: pd.Series, columns: np.ndarray) -> float:
    """Share of the variance of labels that columns explain: R² over all levels."""
    indicators = pd.get_dummies(labels).to_numpy(float)
    indicators -= indicators.mean(axis=0)
    basis = np.linalg.qr(columns - columns.mean(axis=0))[0]
    return float(((basis.T @ indicators) ** 2).sum() / (indicators**2).sum())


def main() -> None:
    """Print a row a way and association, and the bladder arrays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore")
    print(
        "| batch goes with group | in the model | R² of batch | p < .05, equal | fdr .05: false | found |"
    )
    print("|---|---|---|---|---|---|")
    for name, in_batch in IN_BATCH.items():
        rows: dict[str, list[list[float]]] = {}
        for seed in range(seeds):
            adata = simulate(seed, in_batch)
            true = adata.var["differs"].to_numpy()
            for way, share, table in tests(adata):
                called = (table["p_adjusted"] < 0.05).to_numpy()
                false = (called & ~true).sum() / max(called.sum(), 1)
                rate = (table["p_value"] < 0.05).to_numpy()[~true].mean()
                rows.setdefault(way, []).append(
                    [share, rate, false, called[true].mean()]
                )
        for way, found in rows.items():
            share, *others = np.mean(found, axis=0)
            shown = "" if np.isnan(share) else f"{share:.2f}"
            text = " | ".join(f"{value:.3f}" for value in others)
            print(f"| {name} | {way} | {shown} | {text} |", flush=True)
    bladder()


def bladder() -> None:
    """The bladder arrays with their batch withheld."""
    adata = bc.datasets.bladder()
    found = bc.tl.surrogate_variables(adata, covariates="cancer")
    k = found.columns_.shape[1]
    share = share_of(adata.obs["batch"], found.columns_)
    print(f"\nbladder: {k} surrogate variables, R² of the batch {share:.2f}")
    test = ("cancer", "Cancer", "Normal")
    called = {}
    for name, key, covariates in (
        ("nothing", None, None),
        ("sva", None, "X_sv"),
        ("the batch", "batch", None),
    ):
        table = bc.tl.differential(adata, key, test, covariates=covariates)
        called[name] = (table["p_adjusted"] < 0.05).to_numpy()
    for name, own in called.items():
        both = (own & called["the batch"]).sum()
        print(f"  {name}: {own.sum()} features, {both} of them also with the batch")


if __name__ == "__main__":
    sys.exit(main())

"""ComBat from its formulas, in straight loops over an explicit design: an oracle.

Johnson, Li & Rabinovic (2007), iterated and stopped as R's sva does. It shares no idea
and no line with the package: whole design matrices, residuals and densities.
"""

from __future__ import annotations

import numpy as np


def combat(x, batch, z, *, parametric=True, mean_only=False, reference=None):
    """Return corrected values; z are the columns of covariates, without intercept."""
    levels = sorted(set(batch))
    dummies = np.array([[float(b == level) for level in levels] for b in batch])
    design, sizes = np.hstack([dummies, z]), dummies.sum(axis=0)
    members = [np.flatnonzero(column) for column in dummies.T]
    varies = [[len(set(x[rows, g])) > 1 for rows in members] for g in range(x.shape[1])]
    genes = [g for g, found in enumerate(varies) if all(found)]
    chosen = range(len(x)) if reference is None else members[levels.index(reference)]
    target, s = np.empty((len(x), len(genes))), np.empty((len(x), len(genes)))
    sigma = np.empty(len(genes))
    for k, g in enumerate(genes):
        beta = np.linalg.lstsq(design, x[:, g])[0]
        effects = beta[: len(levels)]
        common = sizes @ effects / len(x)
        if reference is not None:
            common = effects[levels.index(reference)]
        residuals = x[:, g] - design @ beta
        sigma[k] = np.sqrt(np.mean([residuals[i] ** 2 for i in chosen]))
        target[:, k] = common + z @ beta[len(levels) :]
        s[:, k] = (x[:, g] - target[:, k]) / sigma[k]
    y = x.copy()
    for level, rows in zip(levels, members, strict=True):
        if level == reference:
            continue
        own = s[rows]
        gamma, delta = shrink(own, parametric=parametric, mean_only=mean_only)
        y[np.ix_(rows, genes)] = (own - gamma) / np.sqrt(delta) * sigma + target[rows]
    return y


def shrink(s, *, parametric, mean_only):
    """Return γ* and δ²* of one batch from its standardized values."""
    n, n_genes = s.shape
    gamma_hat = s.mean(axis=0)
    delta_hat = np.ones(n_genes) if mean_only else s.var(axis=0, ddof=1)
    if not parametric:
        found = []
        for g in range(n_genes):
            others = [h for h in range(n_genes) if h != g]
            likelihood = [
                np.prod(
                    np.exp(-((s[:, g] - gamma_hat[h]) ** 2) / (2 * delta_hat[h]))
                    / np.sqrt(2 * np.pi * delta_hat[h])
                )
                for h in others
            ]
            found.append(
                [
                    np.average(hats[others], weights=likelihood)
                    for hats in (gamma_hat, delta_hat)
                ]
            )
        return np.array(found).T
    gamma_bar, tau2 = gamma_hat.mean(), gamma_hat.var(ddof=1)
    if mean_only:
        return (tau2 * gamma_hat + gamma_bar) / (tau2 + 1), delta_hat
    m, v = delta_hat.mean(), delta_hat.var(ddof=1)
    a, b = (2 * v + m**2) / v, (m * v + m**3) / v
    gamma, delta, change = gamma_hat, delta_hat, 1.0
    while change > 1e-4:
        before = gamma, delta
        gamma = (n * tau2 * gamma_hat + delta * gamma_bar) / (n * tau2 + delta)
        delta = (b + ((s - gamma) ** 2).sum(axis=0) / 2) / (n / 2 + a - 1)
        change = max(
            (abs(new - old) / old).max()  # by the signed value, as in sva
            for new, old in zip((gamma, delta), before, strict=True)
        )
    return gamma, delta

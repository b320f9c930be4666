"""What the methods should give, from their formulas: slow, feature by feature, an oracle.

Whole design matrices and residuals of samples, pseudo-inverses and densities: nothing is
shared with the package but one function that no formula here replaces, limma's prior of
variances. What is to be refused is refused here by `Refused`.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import f as fisher
from scipy.stats import rankdata
from scipy.stats import t as student

TINY = 1e-12


class Refused(Exception):
    """There is no right answer, for this reason."""


class Fit:
    """The linear model of each feature by the pseudo-inverse of its own samples."""

    def __init__(self, x, codes, z, w=None, contrasts=None, weights=None):
        n, g = x.shape
        b, p = codes.max() + 1, z.shape[1]
        z = z - z.mean(axis=0)  # large numbers cost digits, and intercepts take them up
        w = np.zeros((n, 0)) if w is None else w - w.mean(axis=0)
        contrasts = np.zeros((n, 0)) if contrasts is None else contrasts
        self.dummies = (codes[:, None] == np.arange(b)).astype(float)
        self.removed = independent(self.dummies, np.hstack([contrasts, w]))
        if rank(np.hstack([self.dummies, contrasts])) < b + contrasts.shape[1]:
            raise Refused("degenerate")
        columns = np.hstack([self.dummies, z, self.removed])
        if rank(columns) < columns.shape[1]:
            raise Refused("confounded")
        self.codes, self.z, self.rows = codes, z, self.dummies.sum(axis=0)
        self.p = columns.shape[1] - b
        self.solved = np.zeros(g, bool)
        self.alpha, self.rss, self.squares, self.n, self.df, self.counts = np.zeros(
            (6, b, g)
        )
        self.beta, self.eta = np.zeros((p, g)), np.zeros((self.p - p, g))
        self.centre = np.zeros((self.p - p, g))
        weights = np.ones(n) if weights is None else weights
        known = {}
        for j in range(g):
            seen = ~np.isnan(x[:, j]) & (weights > 0)
            root = np.sqrt(weights[seen])[:, None]
            y, own, of = x[seen, j], columns[seen], codes[seen]
            pattern = seen.tobytes()
            if pattern not in known:
                norm = np.linalg.norm(own, axis=0)
                norm[norm == 0] = 1
                inverse = np.linalg.pinv(own * root / norm, rcond=1e-11)
                hat = np.einsum("ij,ji->i", own * root / norm, inverse)
                inverse = inverse / norm[:, None] * root[:, 0]
                here = np.any(own[:, :b], axis=0)
                used = np.r_[here, np.ones(self.p, bool)]
                solved = rank(own[:, used]) == used.sum()
                centre = (root**2 * own).sum(axis=0) / max((root**2).sum(), TINY)
                centre[b + p : b + p + contrasts.shape[1]] = 0
                known[pattern] = inverse, hat, solved, centre[b + p :]
            inverse, hat, self.solved[j], self.centre[:, j] = known[pattern]
            theta = inverse @ y
            residuals = y - own @ theta
            self.alpha[:, j], self.beta[:, j] = theta[:b], theta[b : b + p]
            self.eta[:, j] = theta[b + p :]
            for k in range(b):
                mine, weight = of == k, root[of == k, 0] ** 2
                if not mine.any():
                    continue
                mean = np.average(y[mine], weights=weight)
                self.n[k, j], self.counts[k, j] = weight.sum(), mine.sum()
                same = (y[mine] == y[mine][0]).all()
                self.squares[k, j] = 0 if same else weight @ (y[mine] - mean) ** 2
                self.rss[k, j] = weight @ residuals[mine] ** 2
                self.df[k, j] = (1 - hat[mine]).sum()
        self.least = 1e-25 * n * np.nanmax(np.abs(x), axis=0, initial=0) ** 2
        self.clean()
        self.seen = (self.n > 0).all(axis=0)

    def clean(self):
        """Residuals that are only rounding are none; find explained and constant ones."""
        several = self.n > 1
        self.explained = several & (self.df <= 1e-6)
        rounding = self.rss <= np.maximum(10 * TINY * self.squares, self.least)
        self.rss[self.explained | rounding | (self.counts < 2)] = 0
        whole = (self.rows[:, None] > 1) & (self.n == self.rows[:, None])
        flat = (self.rss == 0) & ~self.explained
        self.constant = whole & (flat | (self.squares == 0))

    def extend(self, x, codes, z):
        """New batches with the coefficients of this fit."""
        new = Fit(x - z @ self.beta, codes, z[:, :0])
        plain = Fit(x, codes, z[:, :0])
        new.squares, new.least = plain.squares, plain.least
        new.beta, new.z = self.beta, z
        new.clean()
        return new


def rank(columns):
    """Rank of columns, each scaled to unit norm."""
    norm = np.linalg.norm(columns, axis=0)
    return np.linalg.matrix_rank(columns / np.where(norm > 0, norm, 1), tol=1e-6)


def independent(dummies, columns):
    """The columns that say what batch and those before do not say."""
    kept = np.zeros((len(dummies), 0))
    for column in columns.T:
        more = np.column_stack([dummies, kept, column])
        if np.ptp(column) > 0 and rank(more) == more.shape[1]:
            kept = np.column_stack([kept, column])
    return kept


def standardize(x, fit, *, target, center, scale, reference):
    """Corrected values, and which features may be corrected."""
    sd = np.sqrt(fit.rss / np.maximum(fit.n - 1, 1))
    location, aim = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if target == "unit":
        if fit.p:
            raise Refused("unit with covariates")
    elif reference is not None:
        require_variance(fit, reference, needed=scale)
        location, aim = fit.alpha[reference], sd[reference]
    else:
        spare = fit.n.sum(axis=0) - len(fit.rows) - fit.p
        if scale and fit.rows.sum() - len(fit.rows) - fit.p < 1:
            raise Refused("no variance")
        location = fit.rows / fit.rows.sum() @ fit.alpha
        aim = np.sqrt(fit.rss.sum(axis=0) / np.maximum(spare, 1))
    usable = fit.solved & fit.seen
    y = x.copy()
    for i, k in enumerate(fit.codes):
        if k == reference or (target == "pooled" and len(fit.rows) == 1):
            continue
        for g in np.flatnonzero(usable):
            r = aim[g] / sd[k, g] if scale and sd[k, g] > 0 and aim[g] > 0 else 1.0
            to = location[g] if center else fit.alpha[k, g]
            kept = fit.z[i] @ fit.beta[:, g]
            y[i, g] = to + kept + r * (x[i, g] - kept - fit.alpha[k, g])
    return y, usable


def remove(x, fit):
    """Batch coefficients beside their plain mean, and what nuisances add, subtracted."""
    usable = fit.solved & fit.seen
    if len(fit.rows) < 2 and not fit.removed.shape[1]:
        raise Refused("nothing to remove")
    y = x.copy()
    for i, k in enumerate(fit.codes):
        off = fit.alpha[k] - fit.alpha.mean(axis=0)
        off = off + ((fit.removed[i][:, None] - fit.centre) * fit.eta).sum(axis=0)
        y[i, usable] -= off[usable]
    return y, usable


def without_nuisances(x, fit):
    """Values less what nuisances add beside their mean, and the fit of these."""
    fit.alpha = fit.alpha + (fit.centre * fit.eta).sum(axis=0)
    moved = fit.removed[:, :, None] - fit.centre
    return x - np.where(fit.solved, (moved * fit.eta).sum(axis=1), 0)


def require_variance(fit, reference, *, needed=True):
    told = (~fit.explained[reference] & fit.solved).any()
    if needed and (not told or fit.rows[reference] < 2):
        raise Refused("reference without variance")


class ComBat:
    """ComBat by its definition, on standardized values sample by sample."""

    def __init__(self, fit, *, parametric, mean_only, reference, shrink=True):
        self.parametric, self.reference, self.shrinks = parametric, reference, shrink
        if len(fit.rows) < 2:
            raise Refused("one batch")
        if fit.rows.sum() - len(fit.rows) - fit.p < 1:
            raise Refused("no variance")
        if reference is not None:
            require_variance(fit, reference)
        self.by_location = mean_only or (fit.rows == 1).any()
        varies = self.varying(fit, self.by_location)
        weights = fit.rows / fit.rows.sum()
        squares, n = fit.rss, fit.n
        if reference is not None:
            weights = np.arange(len(fit.rows)) == reference
            squares, n = squares[[reference]], n[[reference]]
        self.location = weights.astype(float) @ fit.alpha
        missing = ((fit.n < fit.rows[:, None]) & varies).any()
        total = squares.sum(axis=0)
        self.sigma = np.sqrt(total / np.maximum(n.sum(axis=0) - missing, 1))
        usable = varies & fit.solved & fit.seen
        usable &= total > 10 * TINY * fit.squares.sum(axis=0)
        if not self.by_location:
            usable &= (fit.n > 1).all(axis=0)
        self.usable = usable

    def correct(self, x, fit, *, joined=False):
        by_location = self.by_location or bool((fit.rows == 1).any())
        usable = self.usable & fit.seen & self.varying(fit, by_location)
        if usable.sum() < 2 and self.shrinks:
            raise Refused("fewer than two features")
        y = x.copy()
        for k in range(len(fit.rows)):
            if k == self.reference and not joined:
                continue
            rows = np.flatnonzero(fit.codes == k)
            at = np.ix_(rows, np.flatnonzero(usable))
            kept = (fit.z[rows] @ fit.beta)[:, usable] + self.location[usable]
            s = (x[at] - kept) / self.sigma[usable]
            gamma, delta2 = self.shrink(s, fit.explained[k, usable], by_location)
            y[at] = (s - gamma) / np.sqrt(delta2) * self.sigma[usable] + kept
        return y, usable

    def varying(self, fit, by_location):
        """Unshrunk, observed values that are all alike have no scale, missing ones or not."""
        none = fit.constant.any(axis=0)
        if not (self.shrinks or by_location):
            none |= ((fit.rss == 0) & ~fit.explained).any(axis=0)
        return ~none

    def shrink(self, s, explained, by_location):
        gamma, n = np.nanmean(s, axis=0), (~np.isnan(s)).sum(axis=0)
        ones = np.ones_like(gamma)
        known = np.full(len(gamma), not by_location) & ~explained
        if not self.shrinks:
            own = np.nanvar(s[:, known], axis=0, ddof=1)
            ones[known] = own
            return gamma, ones
        if known.sum() < 2:
            known[:] = False
        prior = gamma.mean(), gamma.var(ddof=1)
        new = (prior[1] * gamma + prior[0]) / (prior[1] + 1), ones.copy()
        if not self.parametric and not known.all():
            new = average_likely(s, gamma, ones)[0], ones.copy()
        if known.any():
            part, hats = s[:, known], gamma[known]
            delta2 = np.nanvar(part, axis=0, ddof=1)
            delta2[np.nanmax(part, axis=0) == np.nanmin(part, axis=0)] = 0
            own = average_likely(part, hats, delta2)
            if self.parametric:
                own = iterate(part, hats, delta2, n[known], prior)
            new[0][known], new[1][known] = own
        return new


def iterate(s, gamma_hat, delta_hat, n, prior):
    """Posterior means, until a round changes nothing by more than 1e-4 of itself."""
    gamma_bar, tau2 = prior
    m, v = delta_hat.mean(), delta_hat.var(ddof=1)
    if v <= 1e-20 * m**2:
        raise Refused("degenerate")
    a, b = (2 * v + m**2) / v, (m * v + m**3) / v
    gamma, delta = gamma_hat, delta_hat
    for _ in range(1000):
        before = gamma, delta
        gamma = (n * tau2 * gamma_hat + delta * gamma_bar) / (n * tau2 + delta)
        delta = (b + np.nansum((s - gamma) ** 2, axis=0) / 2) / (n / 2 + a - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = max(
                np.nanmax(abs(new - old) / old)
                for new, old in zip((gamma, delta), before, strict=True)
            )
        if change <= 1e-4:
            return gamma, delta
    raise Refused("degenerate")


def average_likely(s, gamma, delta2):
    """Every other feature's effects, weighted by how likely they make the values."""
    out = np.zeros((2, len(gamma)))
    for g in range(len(gamma)):
        mine = s[~np.isnan(s[:, g]), g]
        others = [h for h in range(len(gamma)) if h != g and delta2[h] > 0]
        if not others:
            raise Refused("degenerate")
        logs = np.array(
            [
                -((mine - gamma[h]) ** 2).sum() / (2 * delta2[h])
                - len(mine) / 2 * np.log(2 * np.pi * delta2[h])
                for h in others
            ]
        )
        likely = np.exp(logs - logs.max())
        out[:, g] = (likely @ gamma[others], likely @ delta2[others]) / likely.sum()
    return out


def log_normalize(counts, *, target_sum, base, prior_count):
    """Logarithms of counts on a common library, and with edgeR's scaled prior."""
    library = counts.sum(axis=1)
    filled = library > 0
    if not filled.any():
        raise Refused("degenerate")
    if prior_count is None:
        to = np.median(library[filled]) if target_sum is None else target_sum
        scale = np.where(filled, library, 1.0) / to
        return np.log1p(counts / scale[:, None]) / np.log(base or np.e)
    mean = library[filled].mean()
    used = np.where(filled, library, mean)[:, None]
    prior = prior_count * used / mean
    values = (target_sum or 1e6) * (counts + prior) / (used + 2 * prior)
    return np.log(values) / np.log(base or 2)


def quantile_normalize(x, *, ties):
    """Every sample the mean distribution; limma's way with missing values and ties."""
    n, g = x.shape
    if np.isnan(x).all(axis=1).any():
        raise Refused("a sample without values")
    places = np.linspace(0, 1, g)

    def stretched(own):
        own = np.sort(own)
        steps = np.linspace(0, 1, len(own))
        return np.interp(places, steps, own) if len(own) > 1 else np.full(g, own[0])

    target = np.mean([stretched(row[~np.isnan(row)]) for row in x], axis=0)
    y = np.full((n, g), np.nan)
    for i, row in enumerate(x):
        seen = ~np.isnan(row)
        order = rankdata(row[seen], method="average" if ties else "ordinal") - 1
        last = seen.sum() - 1
        at = order / last if last else np.full(1, 0.5)
        y[i, seen] = np.interp(at, places, target) if g > 1 else target
    return y


def variance_explained(x, codes, z):
    """Mean adjusted R² of batch, of covariates within it, and of batch beyond them."""
    n, ones, z = len(x), np.ones((len(x), 1)), z - z.mean(axis=0)
    dummies = (codes[:, None] == np.unique(codes)).astype(float)
    if dummies.shape[1] < 2:
        raise Refused("one batch")
    models = {"T": ones, "B": dummies}
    models |= {"C": np.hstack([ones, z]), "F": np.hstack([dummies, z])}
    rss, spare = {}, {}
    for name, columns in models.items():
        if rank(columns) < columns.shape[1]:
            raise Refused("confounded")
        norm = np.linalg.norm(columns, axis=0)
        fitted = columns @ (np.linalg.pinv(columns / norm) @ x / norm[:, None])
        rss[name], spare[name] = ((x - fitted) ** 2).sum(axis=0), n - columns.shape[1]
    varies = np.ptp(x, axis=0) > 0
    if spare["F"] < 1 or not varies.any():
        raise Refused("no variance")

    def share(full, part):
        pick = varies & (rss[part] > 10 * TINY * rss["T"])
        ratio = rss[full][pick] / spare[full] / (rss[part][pick] / spare[part])
        return np.mean(1 - ratio) if pick.any() else np.nan

    return np.array([share("B", "T"), share("F", "B"), share("F", "C")])


class Test:
    """Contrasts of levels with the first by least squares, each feature by itself."""

    def __init__(self, x, codes, z, levels, weights):
        dummies = (codes[:, None] == np.unique(codes)).astype(float)
        columns = np.column_stack([dummies, z - z.mean(axis=0), levels])
        if rank(columns) < columns.shape[1]:
            raise Refused("confounded")
        if len(x) - columns.shape[1] < 1:
            raise Refused("no variance")
        self.x, self.weights = x, weights
        self.columns = columns / np.linalg.norm(columns, axis=0)
        self.norm, self.k = np.linalg.norm(columns, axis=0), levels.shape[1]

    def values(self, prior_of, correlation, subject):
        """β, standard error, t and p of each level, and F and its p if there are two."""
        g, k = self.x.shape[1], self.k
        beta, v = np.full((k, g), np.nan), np.full((g, k, k), np.nan)
        s2, df = np.zeros(g), np.zeros(g)
        same = np.eye(len(self.x))
        if subject is not None:
            same = np.where(subject[:, None] == subject, correlation, 0.0)
            np.fill_diagonal(same, 1.0)
        for j in range(g):
            seen = ~np.isnan(self.x[:, j])
            if not seen.any():
                continue
            root = np.linalg.inv(np.linalg.cholesky(same[np.ix_(seen, seen)]))
            root = root * np.sqrt(self.weights[seen])
            own, y = root @ self.columns[seen], root @ self.x[seen, j]
            inverse = np.linalg.pinv(own, rcond=1e-9)
            theta = inverse @ y
            df[j] = seen.sum() - np.linalg.matrix_rank(own, tol=1e-8)
            s2[j] = ((y - own @ theta) ** 2).sum() / max(df[j], 1)
            told = (
                np.abs((inverse @ own - np.eye(own.shape[1]))[-k:]).max(axis=1) < 1e-6
            )
            scale = self.norm[-k:]
            beta[:, j] = np.where(told, theta[-k:] / scale, np.nan)
            both = inverse[-k:] @ inverse[-k:].T / np.outer(scale, scale)
            v[j] = np.where(np.outer(told, told), both, np.nan)
        self.spread, self.df = np.sqrt(s2), df
        prior = prior_of(s2, df, None)
        d0 = np.broadcast_to(prior.df, g)
        s02 = np.broadcast_to(prior.scale, g)
        finite = np.where(np.isfinite(d0), d0, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            moderated = (finite * s02 + df * s2) / (finite + df)
            moderated = np.where(np.isfinite(d0), moderated, s02)
            freedom = np.minimum(df + d0, df.sum())
            found = []
            for i in range(k):
                error = np.sqrt(moderated * v[:, i, i])
                t = beta[i] / error
                found += [beta[i], error, t, 2 * student.sf(abs(t), freedom)]
            if k > 1:
                whole = np.isfinite(v).all(axis=(1, 2))
                safe = np.where(whole[:, None, None], v, np.eye(k))
                f = np.einsum("ig,gij,jg->g", beta, np.linalg.inv(safe), beta)
                f = f / k / moderated
                found += [f, fisher.sf(f, k, np.minimum(df + d0, 1e12))]
        return found


def add_subjects(x, fit, subject, varies):
    """Predicted intercepts of subjects (n, G); the fit becomes the mixed model's.

    The second result says whether a ratio of variances is known badly.
    """
    z = fit.z - fit.z.mean(axis=0)
    columns, p = np.hstack([fit.dummies, z]), z.shape[1]
    same = (subject[:, None] == subject).astype(float)
    values, vectors = np.linalg.eigh(same)
    n, u, near = len(x), np.zeros_like(x), False
    turned = vectors.T @ columns

    def solve(share, y):
        root = 1 / np.sqrt(1 - share + share * np.maximum(values, 0))
        own, of_y = turned * root[:, None], y * root
        beta, *_ = np.linalg.lstsq(own, of_y, rcond=None)
        rss = ((of_y - own @ beta) ** 2).sum()
        size = np.linalg.slogdet(own.T @ own)[1] - 2 * np.log(root).sum()
        return beta, size + (n - columns.shape[1]) * np.log(rss)

    shares = np.linspace(0, 1, 200, endpoint=False)
    for g in np.flatnonzero(varies):
        y = vectors.T @ (x[:, g] - x[:, g].mean())
        heights = np.array([solve(share, y)[1] for share in shares])
        at = int(np.argmin(heights))
        tops = np.flatnonzero(np.diff(np.sign(np.diff(heights))) > 0) + 1
        near |= len(tops) > 1 or at > 195 or not np.isfinite(heights).all()
        low, high = shares[max(at - 1, 0)], shares[min(at + 1, 199)]
        best = minimize_scalar(
            lambda share, y=y: solve(share, y)[1],
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-12},
        )
        share = 0.0 if heights[0] <= best.fun else best.x
        near |= 0 < share < 1e-4
        beta, _ = solve(share, y)
        left = x[:, g] - x[:, g].mean() - columns @ beta
        whole = (1 - share) * np.eye(n) + share * same
        u[:, g] = share * same @ np.linalg.solve(whole, left)
        b = len(fit.rows)
        fit.beta[:, g] = beta[b:]
        fit.alpha[:, g] = beta[:b] + x[:, g].mean() - z.mean(axis=0) @ beta[b:]
        fit.rss[:, g] = fit.dummies.T @ (left - u[:, g]) ** 2
    assert p == len(fit.beta)
    return u, near


def equal_scores(y, usable, fit, state, *, explained, scale_features):
    """CovBat's second step: scores of components by ComBat without shrinkage."""
    kept = np.where(usable, state.location + fit.z @ fit.beta, 0)
    left = y - kept
    centre = left.mean(axis=0)
    left = (left - centre)[:, usable]
    size = left.std(axis=0, ddof=1) if scale_features else np.ones(usable.sum())
    if not (size > 0).all() or not usable.any():
        raise Refused("degenerate")
    own, squares, vectors = np.linalg.svd(left / size, full_matrices=False)
    share = np.cumsum(squares**2) / (squares**2).sum()
    k = int((share <= explained).sum()) + 1
    after = squares[k] if k < len(squares) else 0.0
    if (
        abs(share - explained).min() < 1e-9
        or squares[k - 1] - after < 1e-6 * squares[0]
    ):
        raise Refused("degenerate")
    scores = own[:, :k] * squares[:k]
    of_scores = Fit(scores, fit.codes, fit.z[:, :0])
    of_scores.explained |= fit.explained.all(axis=1)[:, None]
    of_scores.rss[of_scores.explained], of_scores.constant[:] = 0, False
    options = {"parametric": True, "mean_only": False, "reference": None}
    unshrunk = ComBat(of_scores, **options, shrink=False)
    moved, _ = unshrunk.correct(scores, of_scores)
    out = y.copy()
    out[:, usable] += (moved - scores) @ vectors[:k] * size
    return out


def unwanted_factors(method, x, controls, sets, z, k):
    """RUVg, RUVr and RUVs by singular vectors of whole matrices."""
    if method == "ruvs":
        parts = [x[sets == s] for s in np.unique(sets) if (sets == s).sum() > 1]
        left = np.vstack([part - part.mean(axis=0) for part in parts])
        _, size, vectors = np.linalg.svd(left, full_matrices=False)
        real = int((size**2 > 1e-13 * size[0] ** 2).sum())
        require_gaps(size, min(k, real))
        ways = (vectors * size[:, None])[: min(k, real)][:, controls]
        if rank(ways) < len(ways):
            raise Refused("degenerate")
        return x[:, controls] @ ways.T @ np.linalg.inv(ways @ ways.T)
    y = x[:, controls]
    y = (
        y
        - (z if method == "ruvr" else z[:, :1])
        @ (np.linalg.lstsq(z if method == "ruvr" else z[:, :1], y, rcond=None)[0])
    )
    columns, size, _ = np.linalg.svd(y - y.mean(axis=0), full_matrices=False)
    real = int((size**2 > 1e-13 * size[0] ** 2).sum())
    require_gaps(size, min(k, real))
    lost = np.finfo(float).eps * (x[:, controls] ** 2).sum()  # of products of samples
    if real and lost > 1e-5 * size[min(k, real) - 1] ** 2:
        raise Refused("degenerate")
    return columns[:, : min(k, real)]


def require_gaps(size, k):
    """Singular vectors are known only where their values are apart."""
    gaps = -np.diff(np.append(size, 0.0))[:k]
    if (gaps < 1e-5 * size[0]).any():
        raise Refused("degenerate")

"""A location-scale method with options: the call of it, and what it should give."""

from __future__ import annotations

import numpy as np
import pandas as pd

import batchcorr as bc
from fuzzing import reference
from fuzzing.inputs import dummies
from fuzzing.reference import Refused

METHODS = ["combat", "standardize", "remove_batch_effect"]
NUISANCES = ["none", "number", "category", "array", "factor", "batch"]


class Ask:
    """A method with its options, the call of it, and what it should give."""

    def __init__(self, rng, inputs, plain, method=None, *, alone=False, more=True):
        self.rng, self.inputs, self.x = rng, inputs, plain
        self.method = method or str(rng.choice(METHODS))
        self.options, self.more, self.ref, self.w = {}, {}, None, None
        self.contrasts, self.batch = None, inputs.batch
        n, codes = plain.shape[0], inputs.codes
        wants = not (inputs.must or alone) and rng.random() < 0.25
        if self.method != "remove_batch_effect" and wants:
            self.ref = int(rng.integers(codes.max() + 1))
            self.options["reference"] = inputs.names[self.ref]
        if self.method == "combat":
            self.options["parametric"] = bool(rng.random() < 0.75)
            self.options["mean_only"] = bool(rng.random() < 0.2)
            self.options["shrink"] = not (self.options["parametric"] and more) or bool(
                rng.random() < 0.8
            )
            self.kind = bc.ComBat
            if more and not alone and rng.random() < 0.2:
                self.add_nuisance(rng, rng.choice(NUISANCES[:4]), n, codes)
            elif more and not (alone or inputs.must or self.ref is not None):
                self.cross(rng, codes)
        elif self.method == "standardize":
            self.kind = bc.Standardize
            switches = [(True, True)] * 4 + [(True, False), (False, True)]
            center, scale = switches[rng.integers(6)]
            self.options |= {"center": center, "scale": scale}
            bare = inputs.z.shape[1] == 0 or rng.random() < 0.1
            if self.ref is None and bare and rng.random() < 0.5:
                self.options["target"] = "unit"
        else:
            self.kind = bc.RemoveBatchEffect
            kind = "none" if alone else rng.choice(NUISANCES)
            self.add_nuisance(rng, kind, n, codes)
            if rng.random() < 0.15 and not alone:
                weights = rng.choice([0.5, 1, 2], n)
                self.more["weights"] = weights
        inputs.traits.add(f"method: {self.method}")

    def cross(self, rng, codes):
        """Two batch factors whose combinations are the batches."""
        if rng.random() > 0.08 or codes.max() == 0:
            return
        day, lane = np.array(["mon", "tue", "wed"])[codes // 2], codes % 2 + 1
        self.batch = pd.DataFrame({"day": day, "lane": lane})
        self.options["cross"] = True
        self.inputs.traits.add("cross")
        if np.bincount(codes).min() < 2:
            self.inputs.must.append("a combination has one sample")

    def add_nuisance(self, rng, kind, n, codes):
        self.inputs.traits.add(f"nuisance: {kind}")
        number = rng.normal(rng.choice([0, 7, 2000]), 1, n)
        group = rng.choice(["p", "q", "r"], n)
        self.w = np.zeros((n, 0))
        if kind == "number":
            self.more["nuisance"] = pd.DataFrame({"rin": number})
            self.w = number[:, None]
        elif kind == "category":
            self.more["nuisance"] = pd.DataFrame({"run": group, "rin": number})
            self.w = np.column_stack([dummies(group).reshape(n, -1), number])
            self.inputs.may |= len(set(group)) > max(2, n / 2)
        elif kind == "array":
            self.w = rng.normal(5, 1, (n, 2))
            self.more["nuisance"] = self.w.copy()
        elif kind == "batch":  # says nothing that batch does not
            self.w = np.column_stack([codes * 1.0, number])
            self.more["nuisance"] = pd.DataFrame({"day": codes * 1.0, "rin": number})
        elif kind == "factor":
            first = pd.Series(self.inputs.batch).reset_index(drop=True)
            self.batch = pd.DataFrame({"batch": first, "lane": group})
            levels = sorted(set(group))
            self.contrasts = np.array(
                [
                    [(x == k) - float(x == levels[-1]) for k in levels[:-1]]
                    for x in group
                ]
            ).reshape(n, -1)
            self.inputs.may |= len(levels) == n > 2

    def labels(self):
        """Labels as estimators take them, and those that correct, without the rest."""
        given = {"batch": self.batch, "covariates": self.inputs.covariates}
        return given | self.more, {
            name: value
            for name, value in (given | self.more).items()
            if name not in {"weights"}
        }

    def estimator(self):
        formula = self.inputs.formula
        return self.kind(**self.options, **({"formula": formula} if formula else {}))

    def expected(self, x=None, rows=slice(None)):
        """The corrected values and the features that are corrected, or Refused."""
        x = self.x if x is None else x
        if self.inputs.must:
            raise Refused(self.inputs.must[0])
        if np.isinf(x).any():
            raise Refused("infinite")
        codes = self.inputs.codes[rows]
        w = None if self.w is None else self.w[rows]
        contrasts = None if self.contrasts is None else self.contrasts[rows]
        z, weights = self.inputs.z[rows], self.more.get("weights")
        if self.method == "remove_batch_effect" and codes.max() == 0:
            varying = w is not None and w.size and (np.ptp(w, axis=0) > 0).any()
            if not varying and (contrasts is None or not contrasts.size):
                raise Refused("nothing to remove")
        fit = reference.Fit(x, codes, z, w, contrasts, weights)
        if not fit.seen.any():  # refused, or said to stay as they are
            self.inputs.may = True
            return x, fit.seen, fit
        if not fit.solved.any():
            raise Refused("no feature can be fitted")
        if self.method == "remove_batch_effect":
            return (*reference.remove(x, fit), fit)
        if self.method == "standardize":
            options = {"target": "pooled"} | self.options | {"reference": self.ref}
            return (*reference.standardize(x, fit, **options), fit)
        options = {k: v for k, v in self.options.items() if k != "cross"}
        without = reference.without_nuisances(x, fit)
        self.state = reference.ComBat(fit, **options | {"reference": self.ref})
        y, usable = self.state.correct(without, fit)
        return np.where(usable, y, x), usable, fit

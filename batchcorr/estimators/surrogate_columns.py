"""The steps to surrogate variables: what is asked, read, counted, found and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr.arrays.sample_products import (
    in_memory,
    products_with,
    sample_products,
    scores,
)
from batchcorr.errors import InputError
from batchcorr.estimators.progress import progress
from batchcorr.models.frozen_surrogates import exact_columns, fast_columns
from batchcorr.models.surrogate_variables import (
    count_variables,
    find_by_reweighting,
    find_in_two_steps,
    find_with_controls,
)
from batchcorr.models.unwanted_factors import factors_of_controls, factors_of_replicates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.estimators.known_model import KnownModel
    from batchcorr.models.namespace import Matrix

    Floats = NDArray[np.float64]

__all__ = ["Found", "Question", "find", "number_of", "of_new_samples"]


class Question(NamedTuple):
    """What is looked for, and in what.

    Attributes
    ----------
    method
        Its name.
    x
        (n, G): an array in memory for those of sva, else of any kind.
    known
        The known models.
    controls
        Weights of features: (G,).
    sets
        Rows of samples that should not differ.
    n_variables
        How many columns.
    rounds
        Times that features are weighed.
    """

    method: str
    x: Matrix
    known: KnownModel
    controls: Floats
    sets: Sequence[Sequence[int]]
    n_variables: int
    rounds: int


class Found(NamedTuple):
    """Columns (n, k), weights of features (G,), and what new samples need, by name."""

    columns: Floats
    weights: Floats
    frozen: dict[str, Floats]


def number_of(
    x: Floats, known: KnownModel, permutations: int, random_state: int
) -> tuple[int, Floats]:
    """How many columns, and the p-value of each component, by shuffled residuals."""
    random = np.random.default_rng(random_state)
    varying = x[:, (x != x[0]).any(axis=0)]
    places = np.broadcast_to(np.arange(len(x)), varying.T.shape)
    with progress("Number of surrogate variables", permutations) as advance:

        def shuffle() -> NDArray[np.intp]:
            advance(1)
            order: NDArray[np.intp] = random.permuted(places, axis=1)
            return order

        return count_variables(varying, known.full, shuffle, rounds=permutations)


def find(question: Question) -> Found:
    """Find the columns; the largest entry of each is positive."""
    finders = {"ruvg": _ruv_controls, "ruvr": _ruv_residuals, "ruvs": _ruv_replicates}
    if question.n_variables == 0:
        n, g = question.x.shape
        nothing = {"loadings": np.zeros((g, 0)), "means": np.zeros(g)}
        return Found(np.zeros((n, 0)), np.zeros(g), nothing)
    found = finders.get(question.method, _sva)(question)
    rows = np.argmax(np.abs(found.columns), axis=0)
    signs = np.sign(found.columns[rows, np.arange(found.columns.shape[1])])
    frozen = dict(found.frozen)
    if "loadings" in frozen:
        frozen["loadings"] = frozen["loadings"] * signs
    return Found(found.columns * signs, found.weights, frozen)


def _sva(question: Question) -> Found:
    """Columns from weighed features, which new samples are set beside."""
    method, x, known, controls, _, count, rounds = question
    varying = (x != x[0]).any(axis=0)
    own = x[:, varying]
    if method == "sva":
        found = find_by_reweighting(own, known.full, known.null, count, rounds=rounds)
    elif method == "two_step":
        found = find_in_two_steps(own, known.full, count)
    else:
        found = find_with_controls(own, controls[varying], count)
    weights = np.zeros(x.shape[1])
    weights[varying] = found.weights
    frozen = {} if method == "two_step" else {"training": x}
    return Found(found.columns, weights, frozen)


def _ruv_controls(question: Question) -> Found:
    """Components of the controls, measured from the mean of each."""
    x, chosen = question.x, question.controls > 0
    columns = factors_of_controls(sample_products(x, chosen), question.n_variables)
    n = len(columns)
    means = products_with(x, np.full((n, 1), 1 / n))[:, 0]
    loadings = products_with(x, columns) - np.outer(means, columns.sum(axis=0))
    loadings[~chosen] = 0.0
    return Found(
        columns, question.controls, {"loadings": _inverse(loadings), "means": means}
    )


def _ruv_residuals(question: Question) -> Found:
    """Components of what the covariates leave, which new samples do not have."""
    products = sample_products(question.x, question.controls > 0)
    basis = np.linalg.qr(question.known.full)[0]
    columns = factors_of_controls(products, question.n_variables, basis)
    return Found(columns, question.controls, {})


def _ruv_replicates(question: Question) -> Found:
    """Factors by which replicates differ, looked for in the controls."""
    x, chosen = question.x, question.controls > 0
    products = sample_products(x)
    of_controls = products if chosen.all() else sample_products(x, chosen)
    columns, ways = factors_of_replicates(
        products, of_controls, question.sets, question.n_variables
    )
    loadings = products_with(x, ways.T)
    loadings[~chosen] = 0.0
    frozen = {"loadings": _inverse(loadings), "means": np.zeros(x.shape[1])}
    return Found(columns, question.controls, frozen)


def _inverse(loadings: Floats) -> Floats:
    """L (LᵀL)⁻¹, so that a sample's columns are (x - means) of it: (G, k)."""
    inverse = np.linalg.solve(loadings.T @ loadings, loadings.T)
    return inverse.T.astype(np.float64)


def of_new_samples(
    x: object, columns: Floats, frozen: dict[str, Floats], method: str, *, fast: bool
) -> Floats:
    """The columns of new samples, (m, k), from what was frozen by `find`."""
    if "loadings" in frozen:
        loadings, means = frozen["loadings"], frozen["means"]
        found: Floats = scores(x, loadings) - means @ loadings
        return found
    if "training" not in frozen:
        why = {
            "two_step": "two_step does not define them",
            "ruvr": "ruvr would need their covariates",
        }[method]
        msg = (
            f"Surrogate variables of new samples cannot be computed: {why}. Use sva, "
            "supervised, ruvg or ruvs, or fit again to all samples."
        )
        raise InputError(msg)
    new, weights = in_memory(x), frozen["weights"]
    if not fast:
        return exact_columns(frozen["training"], weights, columns, new)
    if len(new) < 2:
        msg = (
            "fast=True scales new samples together and needs at least two: use "
            "fast=False."
        )
        raise InputError(msg)
    return fast_columns(frozen["training"], weights, columns, new)

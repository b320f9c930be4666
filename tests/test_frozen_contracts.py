"""What holds for methods that are not fitted from moments, on every kind of matrix.

Those that are have more to hold to, in `test_contracts`. A new method is found through
the registry.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError
from batchcorr.estimators.metadata import Labels
from batchcorr.methods import registry
from tests.conftest import IN_MEMORY, values
from tests.test_contracts import close, same_bits, snapshot

pytestmark = [
    pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning"),
    pytest.mark.filterwarnings("ignore:.* constant in a batch and stay unchanged"),
]

METHODS = {
    name: method
    for name, method in registry().items()
    if not method.record.streams and method.record.returns == "matrix"
}

every_method = pytest.mark.parametrize("name", METHODS)
FEW = {"fortran32", "strided", "readonly", "table", "csr_array", "csc_matrix"}
some_kinds = pytest.mark.parametrize(
    "kind", [kind for kind in IN_MEMORY if kind.name in FEW], ids=lambda kind: kind.name
)


def matrix_of(name, data):
    """Values of the scale that a method expects."""
    counts = METHODS[name].record.scale == "counts"
    return np.floor(4 * abs(data.x)) if counts else data.x


def labels_of(name, data):
    takes = METHODS[name].record.takes
    return Labels(
        data.batch if "batch" in takes else None,
        data.keep(["cell_type"]) if "covariates" in takes else None,
    )


def fit(name, data, x=None):
    model = METHODS[name]()
    x = matrix_of(name, data) if x is None else x
    model.fit_labels(x, labels_of(name, data))
    return model


def corrected(name, model, data, x=None):
    x = matrix_of(name, data) if x is None else x
    return model.apply(x, labels_of(name, data), dense=True)


@every_method
@some_kinds
def test_kinds_of_matrix_give_the_same_and_stay_as_they_are(name, small, kind):
    expected = corrected(name, fit(name, small), small)
    given = kind.of(matrix_of(name, small))
    before = snapshot(given)
    model = fit(name, small, given)
    found = values(corrected(name, model, small, given))
    close(found, expected, 1e-5 if found.dtype == np.float32 else 1e-10)
    for part, value in snapshot(given).items():
        same_bits(value, before[part])


@every_method
def test_the_order_of_rows_does_not_matter(name, small):
    order = np.random.default_rng(3).permutation(len(small.x))
    mixed = small.take(order)
    found = corrected(name, fit(name, mixed), mixed)
    close(found, corrected(name, fit(name, small), small)[order], 1e-9)


@every_method
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_rows_alone_are_corrected_as_among_others(name, small, make):
    model, part = fit(name, small), small.take(list(range(3, 40, 4)))
    whole = values(corrected(name, model, small, make(matrix_of(name, small))))
    alone = values(corrected(name, model, part, make(matrix_of(name, part))))
    close(alone, whole[3:40:4], 1e-12)


@every_method
def test_fit_forgets_what_was_fitted_before(name, small):
    model, few = fit(name, small.take(slice(30))), small
    model.fit_labels(matrix_of(name, few), labels_of(name, few))
    same_bits(corrected(name, model, few), corrected(name, fit(name, few), few))


@every_method
def test_what_is_saved_comes_back(name, small, tmp_path):
    model = fit(name, small)
    model.save(tmp_path / "correction.npz")
    again = bc.load(tmp_path / "correction.npz")
    assert type(again) is type(model)
    assert again.get_params() == model.get_params()
    assert again.summary() == model.summary()
    same_bits(corrected(name, again, small), corrected(name, model, small))


@every_method
def test_other_features_are_refused(name, small):
    model, x = fit(name, small), matrix_of(name, small)
    with pytest.raises(InputError, match="features"):
        corrected(name, model, small, x[:, 1:])


@every_method
def test_what_a_method_does_not_take_is_refused(name, small):
    takes, model = METHODS[name].record.takes, METHODS[name]()
    age = small.table[["age"]]
    for what in {"covariates", "nuisance", "subject"} - takes:
        labels = labels_of(name, small)._replace(**{what: age})
        with pytest.raises(InputError, match=f"has no {what}"):
            model.fit_labels(matrix_of(name, small), labels)

"""The test over sites that share no rows is that of their rows together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, InputError
from tests.sites.examples import BATCHES, KEPT, gathered, make_adata, only, parts


@pytest.fixture(scope="module")
def adata():
    return make_adata(n_features=40)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
@pytest.mark.parametrize(
    ("test", "options"),
    [
        ("cell_type", {}),
        (("cell_type", "T", "B"), {"trend": True}),
        ("age", {"robust": True}),
        ("age", {"equal_variances": False}),
    ],
    ids=["levels", "contrast", "slope", "weighted"],
)
def test_sites_are_as_one(adata, test, options, exact):
    sites = gathered(adata, only(adata, KEPT), exact=exact)
    found = bc.sites.differential(sites, test, **options)
    wanted = bc.tl.differential(adata, "batch", test, covariates=KEPT, **options)
    tolerance = 1e-10 if exact else 1e-5
    pd.testing.assert_frame_equal(found, wanted, rtol=tolerance, atol=tolerance)


def test_a_feature_that_a_site_left_out_is_tested_on_the_others(adata, tmp_path):
    adata = adata.copy()
    rows = (adata.obs["batch"] == "b").to_numpy()
    adata.X[rows, 3] = np.where(np.arange(rows.sum()) < 2, 4.0, 0.0)
    schema = only(adata, KEPT)
    with pytest.warns(bc.errors.FeatureWarning, match="g3"):
        sites = gathered(adata, schema)
    paths = [tmp_path / f"{k}.npz" for k in range(len(sites))]
    for site, path in zip(sites, paths, strict=True):
        site.save(path)
    found = bc.sites.differential(paths, "age")
    adata.X[rows, 3] = np.nan
    wanted = bc.tl.differential(adata, "batch", "age", covariates=KEPT)
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-10)


@pytest.mark.parametrize(
    ("test", "options", "error", "says"),
    [
        (
            "age",
            {"weights": "w"},
            InputError,
            "weights needs the weight of each sample",
        ),
        ("age", {"voom": True}, InputError, "voom needs the counts"),
        (
            "age",
            {"subject": "who"},
            InputError,
            "subject needs the subject of each sample",
        ),
        ("age", {"covariates": "age"}, InputError, "cannot be given here"),
        ("age", {"trent": True}, InputError, "Did you mean 'trend'"),
        ("aeg", {}, InputError, "'aeg' is not a covariate.*Did you mean 'age'"),
        ("batch", {}, InputError, "'batch' is not a covariate of the schema"),
        (("cell_type", "NKT", "B"), {}, InputError, "no level 'NKT'"),
        (("age", "1", "2"), {}, InputError, "contains numbers and has no level '1'"),
        (3, {}, InputError, "name of a column"),
    ],
)
def test_what_sums_cannot_tell_is_refused_by_name(adata, test, options, error, says):
    sites = gathered(adata, only(adata, KEPT))
    with pytest.raises(error, match=says):
        bc.sites.differential(sites, test, **options)


def test_sites_that_do_not_belong_together_are_refused(adata):
    schema = only(adata, KEPT)
    first, *others = gathered(adata, schema)
    with pytest.raises(DesignError, match="same samples"):
        bc.sites.differential([first, first, *others], "age")
    with pytest.raises(DesignError, match="No site has samples of the batches"):
        bc.sites.differential([first], "age")
    other = bc.moments(parts(adata)[1], only(adata, ["age"], batches=BATCHES))
    with pytest.raises(DesignError, match="different schemas"):
        bc.sites.differential([first, other], "age")
    with pytest.raises(InputError, match=r"must be a SiteMoments"):
        bc.sites.differential([adata], "age")

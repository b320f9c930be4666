"""What cannot be fitted to the sums of sites is named."""

from __future__ import annotations

import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, InputError, MissingKeyError
from tests.sites.examples import KEPT, UNITS, gathered, only, parts


def test_what_no_site_has_is_named(pooled, schema):
    sites = gathered(pooled, schema)
    with pytest.raises(DesignError, match="No site has samples of the batches 'd'"):
        bc.fit_moments([sites[0], bc.moments(parts(pooled)[2][:24].copy(), schema)])
    more = only(pooled, KEPT, levels={"cell_type": ["B", "NK", "ILC", "T"]})
    with pytest.raises(
        DesignError, match=r"No site has samples with 'ILC' of .*'cell_type'"
    ):
        bc.fit_moments(gathered(pooled, more))
    first = only(pooled, KEPT, levels={"cell_type": ["ILC", "B", "NK", "T"]})
    with pytest.raises(
        DesignError, match=r"No site has samples with 'ILC' of .*'cell_type'"
    ):
        bc.fit_moments(gathered(pooled, first))
    flat = pooled.copy()
    flat.obs["age"] = 50.5
    with pytest.raises(DesignError, match=r"more than one value of .*'age'"):
        bc.fit_moments(gathered(flat, schema))


def test_the_same_samples_twice_are_refused(pooled, schema, tmp_path):
    sites = gathered(pooled, schema)
    with pytest.raises(
        DesignError, match=r"site 1 and site 4 contain the same samples"
    ):
        bc.fit_moments([*sites, sites[0]])
    part = parts(pooled)[0]
    again = bc.moments(part[part.obs["batch"] == "b"].copy(), schema, exact=True)
    with pytest.raises(DesignError, match=r"same samples of batch 'b'"):
        bc.fit_moments([*sites, again])
    sites[1].save(tmp_path / "two.npz")
    with pytest.raises(DesignError, match=r"two.npz and .*two.npz .*same samples"):
        bc.fit_moments([tmp_path / "two.npz"] * 2)


def test_fit_refuses_what_moments_cannot_tell(pooled, schema):
    sites = gathered(pooled, schema)
    with pytest.raises(InputError, match="combat_seq cannot be fitted to moments"):
        bc.fit_moments(sites, method="combat_seq")
    with pytest.raises(InputError, match="no parameter 'shrinkage'"):
        bc.fit_moments(sites, shrinkage=True)
    with pytest.raises(InputError, match="A formula cannot be given"):
        bc.fit_moments(sites, formula="~ age")
    with pytest.raises(InputError, match="not AnnData"):
        bc.fit_moments([pooled])
    with pytest.raises(InputError, match="No sites"):
        bc.fit_moments([])
    with pytest.raises(DesignError, match="only one batch"):
        bc.fit_moments([one_batch(pooled)])


def one_batch(pooled):
    part = parts(pooled)[1]
    return bc.moments(part, bc.make_schema(part, "batch", units=UNITS))


def test_labels_outside_the_schema_are_refused(pooled, schema):
    part = parts(pooled)[0]
    part.obs["batch"] = part.obs["batch"].astype(str).replace("b", "z")
    with pytest.raises(DesignError, match=r"batch has labels that are not among .*'z'"):
        bc.moments(part, schema)
    part = parts(pooled)[0]
    part.obs["cell_type"] = part.obs["cell_type"].astype(str).replace("T", "Treg")
    with pytest.raises(
        DesignError, match=r"'cell_type' has labels that are not among .*'Treg'"
    ):
        bc.moments(part, schema)
    with pytest.raises(MissingKeyError, match=r"1 of 30 features .*missing"):
        bc.moments(parts(pooled)[0][:, 1:].copy(), schema)

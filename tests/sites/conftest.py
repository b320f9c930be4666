"""The samples of three sites, and the schema that one of them made."""

from __future__ import annotations

import pytest

import batchcorr as bc
from tests.sites.examples import BATCHES, KEPT, LEVELS, UNITS, make_adata, parts


@pytest.fixture(scope="module")
def pooled():
    return make_adata()


@pytest.fixture(scope="module")
def schema(pooled):
    """Made at site 2, which has one batch only."""
    return bc.make_schema(
        parts(pooled)[1],
        "batch",
        units=UNITS,
        covariates=KEPT,
        batches=BATCHES,
        levels=LEVELS,
    )

"""What sites agree on: by hand, from data, and on disk."""

from __future__ import annotations

from dataclasses import fields

import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, FileError, InputError, MissingKeyError
from tests.sites.examples import BATCHES, LEVELS, UNITS, gathered, only


def test_schema_by_hand_and_from_data_are_the_same(pooled, schema, tmp_path):
    by_hand = bc.Schema(
        pooled.var_names,
        BATCHES,
        units=UNITS,
        covariates={"cell_type": LEVELS["cell_type"], "age": "numeric"},
    )
    assert by_hand == schema
    schema.save(tmp_path / "schema.json")
    assert bc.Schema.load(tmp_path / "schema.json") == schema
    assert schema.columns == ("cell_type[NK]", "cell_type[T]", "age")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ["g1", "g2"]}, r"features \(28 in one only: g0, "),
        ({"features": [f"g{k}" for k in range(29, -1, -1)]}, "in another order"),
        ({"batches": [*BATCHES, "e"]}, r"batches \(a, b, c, d and a, b, c, d, e\)"),
        ({"units": "counts"}, r"units \(log2 CPM and counts\)"),
        ({"covariates": {"age": "numeric"}}, r"covariates \(cell_type, age and age\)"),
        (
            {"covariates": {"cell_type": ["B", "T"], "age": "numeric"}},
            r"levels of 'cell_type' \(B, NK, T and B, T\)",
        ),
    ],
)
def test_sites_of_different_schemas_are_refused(pooled, schema, change, message):
    ours = gathered(pooled, schema)
    given = {field.name: getattr(schema, field.name) for field in fields(schema)}
    theirs = replace_schema(ours[1], bc.Schema(**given | change))
    with pytest.raises(DesignError, match=f"site 1 and site 2 .*{message}"):
        bc.fit_moments([ours[0], theirs])


def replace_schema(site, schema):
    return bc.SiteMoments(schema, site.moments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, "there are none"),
        ({"features": ["x", "x"]}, "'x' occurs more than once"),
        ({"features": "abc"}, "list of feature names"),
        ({"batches": ["a", "a"]}, "all different"),
        ({"batches": []}, "at least one"),
        ({"units": " "}, "units must be text"),
        ({"covariates": {"batch": ["a"]}}, "cannot be a covariate"),
        (
            {"covariates": {"sex": "m"}},
            "list of its levels, or .numeric., not the text",
        ),
        ({"covariates": ["sex"]}, "levels or 'numeric'"),
    ],
)
def test_schemas_that_cannot_be_are_refused(change, message):
    given = {"features": ["x"], "batches": ["a"], "units": UNITS} | change
    with pytest.raises(InputError, match=message):
        bc.Schema(**given)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '{"batchcorr_schema": 1}', "\x00", "[" * 100_000, "text"],
)
def test_files_that_are_no_schema_are_refused(tmp_path, text):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(FileError, match="not a schema"):
        bc.Schema.load(path)
    with pytest.raises(FileError, match="no file"):
        bc.Schema.load(tmp_path / "other.json")


def test_make_schema_refuses_what_sites_cannot_agree_on(pooled):
    with pytest.raises(InputError, match="cannot have a formula"):
        only(pooled, ["~ age"])
    with pytest.raises(MissingKeyError, match="Did you mean 'age'"):
        only(pooled, ["ages"])
    with pytest.raises(DesignError, match=r"not among the declared levels: .*'d'"):
        only(pooled, batches=["a", "b", "c"])
    with pytest.raises(
        MissingKeyError, match="levels for 'sex', which is not a covariate"
    ):
        only(pooled, levels={"sex": ["f", "m"]})

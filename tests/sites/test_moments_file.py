"""The file that leaves a site: saved exactly, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

import batchcorr as bc
from batchcorr._files import npz
from batchcorr.errors import FileError
from batchcorr.models.moments import Moments
from tests.sites.examples import gathered, parts


def test_moments_are_saved_exactly(pooled, schema, tmp_path):
    site = gathered(pooled, schema)[0]
    path = tmp_path / "site.npz"
    site.save(path)
    loaded = bc.SiteMoments.load(path)
    assert loaded.schema == schema
    assert loaded.samples == {"a": 24, "b": 31}
    for field in fields(Moments):
        one, two = (getattr(s.moments, field.name) for s in (loaded, site))
        np.testing.assert_array_equal(one, two)
    assert [p.name for p in tmp_path.iterdir()] == ["site.npz"]


def test_no_row_and_no_name_of_a_sample_is_in_the_file(pooled, schema, tmp_path):
    bc.moments(parts(pooled)[0], schema).save(tmp_path / "site.npz")
    with np.load(tmp_path / "site.npz", allow_pickle=False) as file:
        shapes = {name: file[name].shape for name in file.files}
        header = json.loads(str(file["header"]))
    assert shapes.pop("header") == ()
    assert shapes == {
        "rows": (4, 1),
        "n": (4, 1),
        "mean": (4, 30),
        "squares": (4, 30),
        "columns": (4, 3, 1),
        "cross": (4, 3, 30),
        "gram": (4, 3, 3, 1),
    }
    assert header.keys() == {
        "batchcorr_moments",
        "schema",
        "fingerprint",
        "n_rows",
        "versions",
    }


def change(path, edit):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    edit(arrays, header)
    arrays["header"] = np.array(json.dumps(header))
    np.savez(path, **arrays)


def put(name, place, value):
    return lambda arrays, _: arrays[name].__setitem__(place, value)


DAMAGES = {
    "fewer features": lambda a, _: a.update(mean=a["mean"][:, 1:]),
    "another dtype": lambda a, _: a.update(mean=a["mean"].astype("f4")),
    "not finite": put("cross", (0, 0, 0), np.nan),
    "half a sample": put("rows", (0, 0), 23.5),
    "fewer samples": put("rows", (0, 0), 23),
    "few samples": lambda a, h: (
        put("rows", (0, 0), 4)(a, h),
        put("n", (0, 0), 4)(a, h),
    ),
    "more values than samples": put("n", (0, 0), 25),
    "negative squares": put("squares", (0, 0), -1),
    "negative products": put("gram", (0, 0, 0, 0), -1),
    "an array less": lambda a, _: a.pop("gram"),
    "an array more": lambda a, _: a.update(x=np.ones(3)),
    "another schema": lambda _, h: h["schema"].update(units="counts"),
    "no schema": lambda _, h: h.pop("schema"),
    "schema of a list": lambda _, h: h.update(schema=[]),
    "other rows": lambda _, h: h.update(n_rows=56),
    "no version": lambda _, h: h.update(batchcorr_moments=float("inf")),
    "a newer version": lambda _, h: h.update(batchcorr_moments=2),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_changed_files_are_refused(pooled, schema, tmp_path, name):
    path = tmp_path / "site.npz"
    bc.moments(parts(pooled)[0], schema).save(path)
    change(path, DAMAGES[name])
    with pytest.raises(
        FileError, match=r"site\.npz (is damaged|does not|was saved by)"
    ):
        bc.SiteMoments.load(path)


def test_what_is_of_another_size_is_not_read(pooled, schema, tmp_path, monkeypatch):
    path = tmp_path / "site.npz"
    bc.moments(parts(pooled)[0], schema).save(path)
    change(path, lambda arrays, _: arrays.update(mean=np.zeros((4, 100_000))))
    read, read_array = [], npz.npy.read_array

    def note(stream, **options):
        read.append(array := read_array(stream, **options))
        return array

    monkeypatch.setattr(npz.npy, "read_array", note)
    with pytest.raises(FileError, match=r"mean is float64 of shape \(4, 100000\)"):
        bc.SiteMoments.load(path)
    assert [array.shape for array in read] == [(), (4, 1), (4, 1)]


def together(arrays, _):
    """Products with two levels, each of which the squares allow, and not both."""
    gram, squares = arrays["gram"][0, :, :, 0], arrays["squares"][0, 3]
    arrays["cross"][0, :2, 3] = 0.9 * np.sqrt(np.diag(gram)[:2] * squares)


def twice(*edits):
    return lambda arrays, header: [edit(arrays, header) for edit in edits]


IMPOSSIBLE = {
    "are larger than their squares": put("cross", (0, 0, 0), 1e4),
    "larger than their squares": together,
    "squares are negative": put("squares", (0, 0), -1),
    "not positive semidefinite": twice(
        put("gram", (0, 1, 2, 0), 1e3), put("gram", (0, 2, 1, 0), 1e3)
    ),
    "are no squares": put("gram", (0, 0, 1, 0), 2.0),
    "no shares between 0 and 1": put("columns", (0, 0, 0), -0.25),
    "no whole number of samples": put("columns", (0, 0, 0), 5.5 / 24),
    "not those of their shares": put("gram", (0, 0, 0, 0), 3.0),
    "sums of no values": put("mean", (3, 0), 1.0),
}


@pytest.mark.parametrize("message", IMPOSSIBLE)
@pytest.mark.parametrize("exact", [True, False])
def test_sums_that_no_samples_have_are_refused(
    pooled, schema, tmp_path, message, exact
):
    path = tmp_path / "site.npz"
    bc.moments(parts(pooled)[0], schema, exact=exact).save(path)
    bc.SiteMoments.load(path)
    change(path, IMPOSSIBLE[message])
    with pytest.raises(FileError, match=f"damaged: in batch '[ad]', .*{message}"):
        bc.SiteMoments.load(path)


def test_damaged_and_other_files_are_refused(pooled, schema, tmp_path):
    path = tmp_path / "site.npz"
    bc.moments(parts(pooled)[0], schema).save(path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-30], b"text"):
        path.write_bytes(content)
        with pytest.raises(FileError, match="does not hold the moments"):
            bc.fit_moments([path])
    bc.fit(pooled, "batch", method="standardize").save(path)
    with pytest.raises(FileError, match="does not hold the moments"):
        bc.SiteMoments.load(path)
    np.savez(path, header=np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(FileError, match="does not hold the moments"):
        bc.SiteMoments.load(path)
    with pytest.raises(FileError, match="There is no file"):
        bc.SiteMoments.load(tmp_path / "none.npz")


def test_a_byte_that_changed_is_found_or_means_nothing(pooled, schema, tmp_path):
    path = tmp_path / "site.npz"
    site = bc.moments(parts(pooled)[0], schema)
    site.save(path)
    whole, harmless = path.read_bytes(), 0
    for place in np.linspace(0, len(whole) - 1, 150).astype(int):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        try:
            found = bc.SiteMoments.load(path)
        except FileError:
            continue
        harmless += 1
        assert found.schema == schema
        for field in fields(Moments):
            one, two = (getattr(s.moments, field.name) for s in (found, site))
            np.testing.assert_array_equal(one, two)
    assert harmless < 30

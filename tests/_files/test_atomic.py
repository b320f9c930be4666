from __future__ import annotations

import os
import stat

import pytest

from batchcorr._files.atomic import replacing, replacing_folder


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_stays_a_link_to_the_file_that_is_replaced(tmp_path):
    real, link = tmp_path / "far" / "real.npz", tmp_path / "link.npz"
    real.parent.mkdir()
    link.symlink_to(real)
    for text in ("new", "replaced"):  # first it points to nothing
        with replacing(link) as part:
            assert part.parent == real.parent
            part.write_text(text)
        assert link.is_symlink()
        assert real.read_text() == text
    folder, other = tmp_path / "far" / "a.zarr", tmp_path / "b.zarr"
    folder.mkdir()
    other.symlink_to(folder)
    with replacing_folder(other) as part:
        (part / "0").write_text("chunk")
    assert other.is_symlink()
    assert (folder / "0").read_text() == "chunk"


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o666])
def test_permissions_are_kept(tmp_path, bits):
    file, folder = tmp_path / "a.npz", tmp_path / "a.zarr"
    file.touch()
    folder.mkdir()
    file.chmod(bits)
    folder.chmod(bits | 0o100)
    with replacing(file) as part, replacing_folder(folder):
        part.write_text("new")
    assert mode(file) == bits
    assert mode(folder) == bits | 0o100


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as part:
            part.write_text("new")
    finally:
        os.umask(old)
    assert mode(tmp_path / "a") == 0o640


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda at: (done.append("fsync"), fsync(at)))
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("rename"), rename(*a)))
    with replacing(tmp_path / "a") as part:
        part.write_text("new")
    assert done == ["fsync", "rename", "fsync"]


def test_an_error_leaves_the_target_as_it_was_and_nothing_else(tmp_path):
    file, folder = tmp_path / "a.npz", tmp_path / "a.zarr"
    file.write_text("old")
    folder.mkdir()
    for give, target in ((replacing, file), (replacing_folder, folder)):
        with pytest.raises(KeyboardInterrupt), give(target):
            raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [file, folder]

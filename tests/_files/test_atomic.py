from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from batchcorr._files import leftovers
from batchcorr._files.atomic import replacing, replacing_folder
from batchcorr.errors import FileWarning

WRITER = """
import os, sys, time
from pathlib import Path
from batchcorr._files.atomic import replacing, replacing_folder
target, moment = Path(sys.argv[1]), sys.argv[2]
def stay(*_):
    print(moment, flush=True)
    time.sleep(60)
if moment == "moved aside":
    rename = Path.rename
    Path.rename = lambda self, to: rename(self, to) if self == target else stay()
with (replacing_folder if target.suffix == ".zarr" else replacing)(target) as part:
    (part / "0" if part.is_dir() else part).write_text("half")
    if moment == "writing":
        stay()
"""


@pytest.fixture
def at_work():
    """Start a process that writes a file and stays in the midst of it."""
    processes = []

    def start(target, moment="writing"):
        command = [sys.executable, "-c", WRITER, str(target), moment]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == f"{moment}\n"
        return process

    yield start
    for process in processes:
        end(process)


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def write(begin, target, what):
    """Write a file of so many bytes, or a folder with so many folders in it."""
    with begin(target) as part:
        if begin is replacing:
            os.truncate(part, what)
        for number in range(what if begin is replacing_folder else 0):
            (part / str(number)).mkdir()


def written(target):
    return len(list(target.iterdir())) if target.is_dir() else target.stat().st_size


def interrupted_at(number, call, *arguments):
    """Whether a call has so many lines, of any module; it is interrupted there."""
    lines = iter(range(number))

    def press(_, event, __):
        if event == "line" and next(lines, None) is None:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return press

    traced = sys.gettrace()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.settrace(press)
    try:
        call(*arguments)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(traced)
        signal.signal(signal.SIGINT, handler)
    return False


@pytest.mark.parametrize("begin", [replacing, replacing_folder])
def test_ctrl_c_at_any_line_leaves_the_old_or_the_new(tmp_path, begin):
    """Before what is written has a name, while it is made, and when it takes the name."""
    target = tmp_path / "out.zarr"
    write(begin, target, 1)
    number = 0
    while interrupted_at(number, write, begin, target, 2):
        assert written(target) in (1, 2)
        assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"], number
        number += 1
    assert number > 100
    assert written(target) == 2


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


needs_posix = pytest.mark.skipif(os.name != "posix", reason="nobody can be asked")


@needs_posix
@pytest.mark.parametrize("name", ["a.npz", "a.zarr"])
def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path, at_work, name):
    target = tmp_path / name
    give = replacing_folder if target.suffix == ".zarr" else replacing
    killed, alive, other = (
        at_work(target),
        at_work(target),
        at_work(target.with_stem("a-b")),
    )
    end(killed)
    end(other)
    with give(target) as part:
        (part / "0" if part.is_dir() else part).write_text("whole")
    left = sorted(p.name.split("-")[-2] for p in tmp_path.glob(".*"))
    assert left == sorted([str(alive.pid), str(other.pid)])  # of another name: not ours
    end(alive)
    with give(target):
        pass
    assert len(list(tmp_path.glob(".*"))) == 1


@needs_posix
def test_a_folder_that_a_killed_process_moved_aside_comes_back(tmp_path, at_work):
    target = tmp_path / "a.zarr"
    target.mkdir()
    (target / "0").write_text("old")
    end(at_work(target, "moved aside"))
    assert not target.exists()
    with pytest.raises(KeyboardInterrupt), replacing_folder(target):
        raise KeyboardInterrupt
    assert (target / "0").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_others_left_is_named(tmp_path, monkeypatch):
    target = tmp_path / "a.npz"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leftovers.platform, "node", lambda: "another machine")
        left = tmp_path / f"{leftovers.clean(target)}abcdefgh.npz"
    left.write_text("half")
    warned = pytest.warns(FileWarning, match=f"temporary files of a.npz.*{left.name}")
    with warned, replacing(target):
        pass
    assert left.exists()

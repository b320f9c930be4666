"""The house rules: who imports whom, how long a file is, what public names look like."""

from __future__ import annotations

import ast
import inspect
import re
import statistics
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import grimp
import pytest
from numpydoc.validate import validate

import batchcorr as bc

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "batchcorr").rglob("*.py"))
HEAVY = ["dask", "matplotlib", "numba", "scanpy", "sklearn", "torch"]

each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def public_objects(module=bc, prefix=""):
    """Yield (dotted name, object) of all that `__all__` offers, modules opened."""
    for name in module.__all__:
        if name == "bridge" and not find_spec("torch"):
            continue
        thing = getattr(module, name)
        if isinstance(thing, ModuleType):
            yield from public_objects(thing, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", thing


def needs_docs(thing):
    if inspect.isclass(thing):
        return not issubclass(thing, BaseException)
    return callable(thing)


def documented_names():
    """Yield dotted names of public objects, and of the methods that are ours."""
    for name, thing in public_objects():
        if not needs_docs(thing):
            continue
        yield name
        if inspect.isclass(thing):
            for inner, method in inspect.getmembers(thing, inspect.isroutine):
                ours = (getattr(method, "__module__", "") or "").startswith("batchcorr")
                if ours and not inner.startswith("_"):
                    yield f"{name}.{inner}"


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]


def test_each_floor_imports_only_floors_below_it():
    done = run_python(
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(no_cache=True))"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_modules_import_each_other_in_a_circle():
    graph = grimp.build_graph("batchcorr")
    imports = {
        module: graph.find_modules_directly_imported_by(module)
        for module in graph.modules
    }
    TopologicalSorter(imports).prepare()  # raises CycleError, and names the circle


def test_the_root_holds_folders_and_five_files():
    here = {path.name for path in (ROOT / "batchcorr").iterdir() if path.is_file()}
    assert here == {"__init__.py", "__main__.py", "_numba.py", "errors.py", "py.typed"}


def test_importing_the_package_is_light():
    done = run_python(
        f"import sys, batchcorr; print(*sys.modules.keys() & {set(HEAVY)})"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_files_are_short():
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in FILES
    }
    assert {name: n for name, n in lines.items() if n > 350} == {}
    assert statistics.median(lines.values()) <= 150


@each_file
def test_a_file_says_what_it_is_for(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "no docstring"
    assert any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree.body
    ), "no `from __future__ import annotations`"


@each_file
def test_nothing_prints(path):
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert calls == []


def test_public_names_exist_once():
    names = [name for name, _ in public_objects()]
    assert len(names) == len(set(names)) > 0


def test_public_objects_have_a_page():
    page = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   ([\w.]+)$", page, flags=re.M)
    assert len(listed) == len(set(listed))
    if not find_spec("torch"):
        listed = [name for name in listed if not name.startswith("bridge.")]
    known = {attrgetter(name)(bc) for name in listed}
    missing = [
        name
        for name, thing in public_objects()
        if needs_docs(thing) and thing not in known
        if not name.startswith(("bridge.claims.", "errors."))
    ]
    assert not missing


def test_public_objects_are_documented():
    excluded = set(pyproject()["numpydoc_validation"]["checks"])
    faults = []
    for name in documented_names():
        # The configuration has "all", less the checks listed after it.
        errors = dict(validate(f"batchcorr.{name}")["errors"])
        faults += [f"{name}: {c} {errors[c]}" for c in errors if c not in excluded]
    assert not faults, "\n".join(faults)


def test_public_objects_have_an_example():
    without = [
        name
        for name, thing in public_objects()
        if needs_docs(thing) and ">>>" not in (inspect.getdoc(thing) or "")
    ]
    assert not without, "\n".join(without)


def test_preprocessing_functions_have_scanpy_s_manners():
    faults = []
    for name in bc.pp.__all__:
        parameters = inspect.signature(getattr(bc.pp, name)).parameters
        kinds = [parameter.kind.name for parameter in parameters.values()]
        positional = [kind for kind in kinds if kind.startswith("POSITIONAL")]
        if next(iter(parameters), None) != "adata":
            faults.append(f"{name}: first parameter is not adata")
        if len(positional) > 3:
            faults.append(f"{name}: {len(positional)} positional parameters")
        copy = parameters.get("copy")
        if copy is None:
            if "VAR_KEYWORD" not in kinds:  # pp.correct passes it on
                faults.append(f"{name}: no copy=")
        elif copy.kind is not copy.KEYWORD_ONLY or copy.default is not False:
            faults.append(f"{name}: copy must be keyword-only and default to False")
    assert not faults, "\n".join(faults)

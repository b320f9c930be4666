"""What tables of mistakes share: data, who watches that nothing changes, and the check.

Every mistake must be refused with an error of the package that is also the built-in error
one would expect, in a sentence that names what was wrong, and must leave everything it
was given, and the disk, as they were.
"""

from __future__ import annotations

import json
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    BatchCorrError,
    BatchCorrWarning,
    FileError,
    MissingKeyError,
    TooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N, G = 24, 6
BATCH = np.repeat(["a", "b", "c"], 8)
NAMES = [f"g{j}" for j in range(G)]
NAN, INF = float("nan"), float("inf")
INTERNALS = re.compile(
    r"__init__|positional argument|context manager|subscriptable|allow_pickle"
    r"|invalid literal|inhomogeneous|maximum number of dimension|has no attribute"
)
"""Words of the code, not of the user."""


# -- what is given --------------------------------------------------------------


def values() -> np.ndarray:
    """Samples × features on a log scale, with batch effects."""
    rng = np.random.default_rng(0)
    return rng.normal(5, 1, (N, G)) + 0.5 * np.arange(N)[:, None] // 8


def with_value(value: float) -> np.ndarray:
    x = values()
    x[2, 3] = value
    return x


def samples(**columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    known = {"sex": np.tile(["f", "m"], N // 2), "age": rng.normal(50, 9, N)}
    known |= {"batch": pd.Categorical(BATCH)} | columns
    return pd.DataFrame(known, index=[f"s{i}" for i in range(N)])


def covariates(**columns: Any) -> pd.DataFrame:
    return samples(**columns)[["sex", "age", *(set(columns) - {"sex", "age"})]]


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(values(), columns=NAMES).assign(**columns)


def annotated(x: Any = None, **columns: Any) -> ad.AnnData:
    adata = ad.AnnData(
        values() if x is None else x,
        obs=samples(**columns),
        var=pd.DataFrame(index=NAMES),
    )
    adata.layers["log"] = values()
    adata.uns["other"] = {"a": 1}
    return adata


def batch_with(label: Any, dtype: Any = object) -> Any:
    labels = [*BATCH[:3], label, *BATCH[4:]]
    return (
        pd.array(labels, dtype=dtype) if dtype == "string" else np.array(labels, dtype)
    )


def age_with(value: float) -> np.ndarray:
    age = samples()["age"].to_numpy().copy()
    age[4] = value
    return age


ONE_OF_A = np.where(np.arange(N) == 0, "a", np.where(BATCH == "a", "b", BATCH))
NEW = ["z"] * N
NOISE = np.random.default_rng(3).normal(size=(N, 30))
GROUP = np.where(BATCH == "a", "ill", "well")


def combat(**kwargs: Any) -> Any:
    return bc.ComBat().fit(values(), batch=BATCH, **kwargs)


# -- what must not change -------------------------------------------------------


def fingerprint(thing: Any) -> Any:
    """Return what makes an object what it is, down to the last bit."""
    if isinstance(thing, ad.AnnData):
        parts = {"view": thing.is_view, "raw": thing.raw is not None}
        if not thing.isbacked:
            parts["X"] = fingerprint(thing.X)
        for name in ("layers", "obsm", "varm", "uns"):
            mapping = getattr(thing, name)
            parts[name] = {key: fingerprint(mapping[key]) for key in mapping if key}
        return parts | {"obs": fingerprint(thing.obs), "var": fingerprint(thing.var)}
    if sp.issparse(thing):
        coo = thing.format == "coo"
        parts = [thing.row, thing.col] if coo else [thing.indices, thing.indptr]
        parts += [thing.data]
        return type(thing), thing.shape, *map(fingerprint, parts)
    if isinstance(thing, pd.DataFrame):
        columns = [fingerprint(thing.iloc[:, k]) for k in range(thing.shape[1])]
        return list(thing.columns), list(thing.index), columns
    if isinstance(thing, pd.Series):
        return str(thing.dtype), joblib.hash(thing.tolist())
    if isinstance(thing, np.ndarray):
        return type(thing), thing.strides, thing.ctypes.data, joblib.hash(thing)
    return joblib.hash(thing)


class Watch:
    """Keeps an eye on what a bad call is given, and on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[Any] = []
        self.before: list[Any] = []
        self.files: dict[str, bytes] = {}
        self.opened: ad.AnnData | None = None

    def __call__(self, thing: Any) -> Any:
        self.kept.append(thing)
        self.before.append(fingerprint(thing))
        self.files = self.listing()
        return thing

    def listing(self) -> dict[str, bytes]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in paths}

    def check(self) -> None:
        assert self.kept, "the row watches nothing"
        for thing, before in zip(self.kept, self.before, strict=True):
            assert fingerprint(thing) == before, f"{type(thing).__name__} changed"
        assert self.listing() == self.files, "files changed"

    # Files, as they may lie on a disk.

    def path(self, name: str = "correction.npz") -> Path:
        return self(self.folder / name)

    def saved(self, **changes: Any) -> Path:
        """Save a correction; `changes` replace entries of its header or arrays."""
        path = self.folder / "correction.npz"
        combat().save(path)
        with np.load(path) as file:
            arrays = dict(file)
        header = json.loads(str(arrays["header"]))
        for name, value in changes.items():
            where = arrays if name.replace("__", ".") in arrays else header
            where[name.replace("__", ".")] = value
            if value is None:
                del where[name.replace("__", ".")]
        np.savez(path, **(arrays | {"header": np.array(json.dumps(header))}))
        return self(path)

    def damaged(self, start: int, stop: int | None = None) -> Path:
        """Save a correction and flip one byte, or cut the file at `start`."""
        path = self.folder / "correction.npz"
        combat().save(path)
        content = bytearray(path.read_bytes())
        if stop is None:
            del content[len(content) // start :]
        else:
            content[start:stop] = bytes(255 - byte for byte in content[start:stop])
        path.write_bytes(content)
        return self(path)

    def written(self, content: bytes, name: str = "correction.npz") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return self(path)

    def npz(self, **arrays: Any) -> Path:
        path = self.folder / "correction.npz"
        np.savez(path, **arrays)
        return self(path)

    def backed(self) -> ad.AnnData:
        path = self.folder / "data.h5ad"
        annotated().write_h5ad(path)
        self.opened = ad.read_h5ad(path, backed="r")
        return self(self.opened)

    def close(self) -> None:
        if self.opened is not None:
            self.opened.file.close()


# -- the table ------------------------------------------------------------------


class Mistake(NamedTuple):
    """A bad call, the error it must meet, and what the message must name."""

    call: Callable[[Watch], Any]
    error: type[Exception]
    builtin: type[Exception]
    must_name: str


class Mistakes(list[Any]):
    """A table of mistakes, one parameter of a test each."""

    def row(
        self,
        name: str,
        error: type[Exception],
        must_name: str,
        call: Any,
        builtin: Any = None,
    ) -> None:
        """Add a bad call and what the message must name."""
        usual = {
            MissingKeyError: KeyError,
            TooLargeError: MemoryError,
            FileError: OSError,
        }
        builtin = builtin or usual.get(error, ValueError)
        self.append(pytest.param(Mistake(call, error, builtin, must_name), id=name))

    def bad(
        self,
        name: str,
        error: type[Exception],
        builtin: type[Exception],
        must_name: str,
    ) -> Any:
        """Add a function: it makes the bad call that `name` describes."""

        def add(call: Any) -> Any:
            self.row(name, error, must_name, call, builtin)
            return call

        return add


def error_of(call: Any, watch: Watch) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BatchCorrWarning)
        try:
            call(watch)
        except Exception as error:  # noqa: BLE001 - whatever a user would meet
            return error
        finally:
            watch.close()
    return None


def check(mistake: Mistake, folder: Path) -> None:
    """A mistake is explained, and changes nothing."""
    watch = Watch(folder)
    met = error_of(mistake.call, watch)
    assert met is not None, "nobody noticed"
    message = str(met)
    told = f"{type(met).__name__}: {message}"
    assert isinstance(met, BatchCorrError), told
    assert isinstance(met, mistake.error), told
    assert isinstance(met, mistake.builtin), told
    assert re.search(mistake.must_name, message, re.DOTALL), told
    assert len(message) > 40, told
    assert message.endswith("."), told
    assert ".." not in message, told
    assert not INTERNALS.search(message), told
    watch.check()

"""The words of the Python functions in messages, as they are typed on the command line."""

from __future__ import annotations

import ast
import re
from contextvars import ContextVar
from shlex import quote
from typing import Any

__all__ = ["as_typed", "labels_in"]

OPTIONS = {
    "batch": "--batch",
    "batch_key": "--batch",
    "controls": "--controls",
    "corrected": "--corrected",
    "covariates": "--covariate",
    "dense": "--dense",
    "key_added": "--key-added",
    "embeddings": "--embedding",
    "labels": "--labels",
    "layer": "--layer",
    "min_count": "--min-count",
    "n_variables": "--number",
    "nuisance": "--nuisance",
    "null": "--null",
    "reference": "--reference",
    "replicates": "--replicates",
    "subject": "--subject",
    "units": "--units",
    "voom": "--voom",
    "weights": "--weights",
}
"""What a parameter is called here, where it is an option of its own."""

PHRASES = (
    (
        r"Label these samples or drop them\.",
        "Label these samples, or say with --missing what becomes of them.",
    ),
    (r"\(first: row (\d+)\)", lambda found: f"(first: number {int(found[1]) + 1})"),
    (r"^X was corrected", "X of IN was corrected"),
    (
        r"(new values since then, delete its record): del adata\.uns\S+",
        r"\1 (of a table the .json file beside it).",
    ),
    (
        r"keep both, with key_added=",
        "name a file of uncorrected values as IN, and this one with --corrected",
    ),
    (r"call adata\.var_names_make_unique\(\)", "give them distinct names"),
    (r"Call adata\.var_names_make_unique\(\)", "Give them distinct names"),
    (r"\bvar_names are", "names of features are"),
    (r"\badata\.var_names\b", "the file"),
    (r"\badata\.(uns|var|layers|obsm)\b", r"\1"),
    (
        r"Fit again with these samples, or estimate the new batches .*add_batches\(.*\)`",
        "Add --add-batches to estimate them, or fit again with these samples",
    ),
    (
        r"with batchcorr\.pp\.log_normalize or scanpy's normalize_total and log1p",
        "with --log-normalize",
    ),
    (r"correct the counts with combat_seq", "correct counts with --method combat_seq"),
    (r"\bbatchcorr\.pp\.(\w+)_normalize\b", r"--\1-normalize"),
    (
        r"correct counts by batchcorr\.pp\.combat_seq",
        "correct counts with --method combat_seq",
    ),
    (r"\bbatchcorr\.(?:sites\.)?moments\b", "batchcorr moments"),
    (
        r"batchcorr\.tl\.differential\(adata, batch_key, (.+?)\)",
        r"batchcorr test … --test \1",
    ),
    (r"linear removal \(batchcorr\.pp\.(\w+)\)", r"--method \1"),
    (r"\bbatchcorr\.tl\.surrogate_variables\b", "batchcorr surrogate"),
    (r"\bcovariates=\[([^]]+)\]", r"--covariate \1"),
    (r"\bestimator\.save\(path\)", "batchcorr fit"),
    (r"\bRemoveBatchEffect\b", "--method remove_batch_effect"),
    (r"\bmethod='two_step'", "--method two_step"),
    (r"\bmethod='(\w+)'", r"--log-normalize=\1"),
    (r"convert it with pandas\.to_numeric", "write them as numbers"),
    (r"make it a category: table\[.*?\), or", "say so with"),
    (r"C\(column\) in a formula", "C(column) in --formula"),
    (r" with pandas\.cut\b", ""),
    (r" \(np\.rint\)", ""),
    (r"\bdense=True\b", "--dense"),
    (r"\bvoom=True\b", "--voom"),
    (r"\btrend=True\b", "--trend"),
    (r"\bequal_variances=False\b", "--unequal-variances"),
    (r"(?<!--set )\b([a-z_]+)=(True|False|'\w+')", r"--set \1=\2"),
)


labels_in: ContextVar[str] = ContextVar("labels_in", default="obs")
"""What holds the labels of the command's file: obs, or the name of a sheet."""

CALL = re.compile(
    r"(bc\.pp\.quantile_normalize\(.*?\); )?\b(bc\.tl\.differential\(adata, ['\[].*\))"
)
"""A test as the report writes it, perhaps of values that are quantile-normalized first."""


def as_typed(message: str, files: str = "IN OUT") -> str:
    """A message in the words of the command line; `files` are those of a test in it."""
    message = CALL.sub(lambda found: _command(found[1], found[2], files), message)
    message = re.sub(r"\badata\.obs\b(?!_)", lambda _: labels_in.get(), message)
    for pattern, words in PHRASES:
        message = re.sub(pattern, words, message)
    for name, option in OPTIONS.items():
        message = re.sub(rf'(?<![\w-]){name}=(?=[\s.,;:)"]|$)', f"{option} ", message)
    message = re.sub(r"^batch_key must", "--batch must", message)
    message = re.sub(r"^n_variables must", "--number must", message)
    return re.sub(r"(--[a-z-]+) (?=[.,;:)])|(--[a-z-]+) {2}", _closed, message)


def _closed(found: re.Match[str]) -> str:
    """An option without the blank that stood for its value."""
    return found[1] or f"{found[2]} "


def _command(before: str | None, test: str, files: str) -> str:
    """A test with its arguments as a command, after quantiles were normalized or not."""
    call: Any = ast.parse(test.replace("=…", "='…'"), mode="eval").body
    batch, test = (ast.literal_eval(each) for each in call.args[1:])
    if not isinstance(test, str):
        test = f"{test[0]}:{test[1]}-{test[2]}" if len(test) == 3 else test[0]
    given = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    words = ["batchcorr test", files, *_option("batch", batch), f"--test {quote(test)}"]
    if before is not None:
        words.append("--quantile-normalize")
        layer = re.search(r"\blayer=('[^']*')", before)
        given["layer"] = ast.literal_eval(layer[1]) if layer else []
    for name, value in given.items():
        formula = name == "covariates" and isinstance(value, str)
        words += _option("formula" if formula else name, value)
    return " ".join(words)


def _option(name: str, value: object) -> list[str]:
    """A parameter as it is typed: once a value."""
    option = OPTIONS.get(name, f"--{name}")
    if isinstance(value, bool):
        return [option] if value else []
    if name == "voom":
        return [f"{option}={value}"]
    if isinstance(value, float):
        return [f"{option} {value:g}"]
    values = value if isinstance(value, list) else [value]
    return [f"{option} {quote(str(each))}" for each in values]

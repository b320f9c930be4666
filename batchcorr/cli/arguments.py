"""What options mean: sizes of memory, and the arguments of a method."""

from __future__ import annotations

import re
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import typer

from batchcorr.errors import MissingKeyError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection

    from batchcorr.estimators.base import Corrector

__all__ = [
    "ELSEWHERE",
    "arguments",
    "batch_key",
    "kept",
    "memory_bytes",
    "only_options",
    "parameters",
]

ELSEWHERE = {"batch_column", "copy", "covariate_columns", "formula"}
"""Parameters of estimators that are options of the commands, or senseless for files."""

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def memory_bytes(text: str) -> int:
    """Read a size such as 2GiB, 500MB or 1.5 g: with i in powers of 1024."""
    match = re.fullmatch(r"([0-9.]+) *(?:([kmgt])(i?))?b?", text.strip().lower())
    try:
        value = float(match[1]) if match else 0.0
    except ValueError:
        value = 0.0
    if match is None or value <= 0:
        msg = f"{text!r} is not a memory size, such as 2GiB or 500MB."
        raise typer.BadParameter(msg, param_hint="--memory")
    power = " kmgt".index(match[2] or " ")
    return int(value * (1024 if match[3] else 1000) ** power)


def parameters(kind: type[Corrector]) -> dict[str, Parameter]:
    """Return the parameters of a method that `--set` takes."""
    known = signature(kind).parameters
    return {name: known[name] for name in known if name not in ELSEWHERE}


def kept(covariates: list[str] | None, formula: str | None) -> dict[str, Any]:
    """What --covariate or --formula names, as an argument; empty where nothing is."""
    if formula is not None and covariates:
        msg = (
            "give either --formula or --covariate: in a formula, join covariates by +."
        )
        raise typer.BadParameter(msg, param_hint="--formula")
    if formula is not None and not formula.lstrip().startswith("~"):
        formula = f"~ {formula}"
    chosen = formula or covariates
    return {"covariates": chosen} if chosen else {}


def arguments(
    method: str,
    *,
    batch: list[str] | None,
    covariates: list[str] | None,
    formula: str | None,
    nuisances: list[str] | None,
    reference: str | None,
    subject: str | None,
    settings: list[str] | None,
) -> dict[str, Any]:
    """Return the options as arguments of the AnnData functions; unset ones left out.

    Raises
    ------
    typer.BadParameter
        If there is no such method or parameter, or options contradict each other.
    """
    from batchcorr.methods import get

    try:
        kind = get(method)
    except MissingKeyError as error:
        raise typer.BadParameter(str(error), param_hint="--method") from error
    if kind.record.normalizes:
        option = f"--{method.replace('_', '-')}"
        msg = (
            f"{method} is a normalization before correction: give {option}, and a "
            "correction method."
        )
        raise typer.BadParameter(msg, param_hint="--method")
    if kind.record.returns != "matrix":
        msg = (
            f"{method} estimates columns for --nuisance and does not correct values: "
            "use `batchcorr surrogate`."
        )
        raise typer.BadParameter(msg, param_hint="--method")
    if not batch and not (nuisances and method == "remove_batch_effect"):
        msg = (
            f"{method} needs the column with the batch. If batches were not recorded, "
            "use remove_batch_effect with --nuisance, such as surrogate variables of "
            "`batchcorr surrogate`."
        )
        raise typer.BadParameter(msg, param_hint="--batch")
    if reference is not None:
        settings = [*(settings or []), f"reference={reference}"]
    given: dict[str, Any] = {"batch_key": batch_key(batch), "method": method}
    given |= kept(covariates, formula)
    if nuisances:
        given["nuisance"] = nuisances
    if subject is not None:
        given["subject"] = subject
    chosen = dict(_setting(kind, text) for text in settings or [])
    for name in chosen.keys() & given.keys():
        msg = f"{name!r} means something else to this command and cannot be set."
        raise typer.BadParameter(msg, param_hint="--set")
    return given | chosen


def batch_key(batch: list[str] | None) -> str | list[str] | None:
    """The column or columns given as --batch, as the Python functions take them."""
    return batch[0] if batch and len(batch) == 1 else batch or None


def only_options(ctx: typer.Context, allowed: Collection[str], why: str) -> None:
    """Refuse, as wrong usage, every option of a command but some (by parameter)."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT" and name not in allowed:
            raise typer.BadParameter(why, param_hint=parameter.opts[0])


def _setting(kind: type[Corrector], text: str) -> tuple[str, Any]:
    """Read NAME=VALUE as the method's parameter of that name is meant."""
    name, equals, value = text.partition("=")
    name, known = name.strip().replace("-", "_"), parameters(kind)
    if not equals:
        msg = f"{text!r} must be NAME=VALUE."
        raise typer.BadParameter(msg, param_hint="--set")
    if name not in known:
        msg = (
            f"{kind.record.name} has no parameter {name!r}. {did_you_mean(name, known)}"
        )
        raise typer.BadParameter(msg, param_hint="--set")
    try:
        return name, _parse(value.strip(), known[name])
    except (KeyError, ValueError):
        wanted = type(known[name].default).__name__
        msg = f"{name} must be {'true or false' if wanted == 'bool' else 'a number'}, "
        msg += f"not {value.strip()!r}."
        raise typer.BadParameter(msg, param_hint="--set") from None


def _parse(text: str, parameter: Parameter) -> Any:
    """Read a value as the type of the default; where that is None, as annotated."""
    default = parameter.default
    if isinstance(default, bool):
        return TRUTH[text.lower()]
    if isinstance(default, int | float | str):
        return type(default)(text)
    if text.lower() == "none":
        return None
    kinds = {part.strip() for part in str(parameter.annotation).split("|")}
    if "float" in kinds:
        return float(text)
    return int(text) if "int" in kinds else text

"""Fits to repeated samples of subjects: a random intercept for each.

A subject is one more covariate that is kept, whose coefficients are predicted and not
fitted: persons that were measured in several batches keep their level, and those of one
batch do not confound it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from batchcorr.arrays.sample_products import in_memory
from batchcorr.design.labels import BatchLabels
from batchcorr.errors import DesignError, InputError
from batchcorr.estimators.estimate import Fitted, LocationScaleSteps, estimate
from batchcorr.estimators.metadata import Labels, Metadata
from batchcorr.models.location_scale import LocationScale
from batchcorr.models.subject_fit import SubjectFit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.linear_model import LinearFit
    from batchcorr.models.namespace import Matrix

__all__ = ["fit_subjects", "with_subject"]


def with_subject(labels: Labels) -> Labels:
    """Labels with the subject as the last of the covariates."""
    if labels.subject is None:
        return labels
    known, subject = labels.covariates, labels.subject
    name = str(getattr(subject, "name", None) or "subject")
    texts = pd.Series(np.asarray(subject, dtype=object))
    texts = texts.map(str, na_action="ignore")
    if known is None:
        table = pd.DataFrame(index=range(len(texts)))
    elif isinstance(known, pd.DataFrame | pd.Series):
        table = pd.DataFrame(known)
    else:
        values = np.asarray(known).reshape(len(known), -1)
        names = [f"covariate[{k}]" for k in range(values.shape[1])]
        table = pd.DataFrame(values, columns=names)
    table = table.drop(columns=name, errors="ignore")
    if len(table) != len(texts):
        msg = f"subject has {len(texts)} labels for {len(table)} samples."
        raise InputError(msg)
    category = pd.Categorical(texts)
    return labels._replace(
        covariates=table.assign(**{name: category}), subject=None, design=None
    )


def fit_subjects(
    method: LocationScaleSteps,
    problem: Problem,
    x: Matrix,
    labels: Labels,
    formula: str | None,
) -> tuple[Fitted, Design]:
    """The correction of a fit with random intercepts, and the design with subjects.

    Raises
    ------
    DesignError
        If no subject has two samples.
    InputError
        If values are missing.
    """
    assert problem.design is not None
    n = len(problem.design.codes)
    _, codes = BatchLabels.factorize(labels.subject, name="subject", n_rows=n)
    if np.bincount(codes).max() < 2:
        msg = (
            "Every subject has only one sample, so that a subject effect cannot be "
            "estimated: leave out subject=, or check that this is the right column."
        )
        raise DesignError(msg)
    refitted: list[SubjectFit] = []
    own = problem.design

    def values(part: slice) -> Matrix:
        block = in_memory(x[:, part])
        if not np.isfinite(block).all():
            msg = (
                "Values are missing, which subject= does not allow: impute them first."
            )
            raise InputError(msg)
        return block

    def refit(fit: LinearFit, columns: list[int]) -> LinearFit:
        z = own.columns[:, columns]
        refitted.append(SubjectFit.refit(fit, values, z, own.codes, codes))
        return refitted[0]

    before = estimate(method, problem, refit=refit)
    merged = with_subject(labels)
    added = str(getattr(labels.subject, "name", None) or "subject")
    if formula is not None:
        formula = f"{formula} + {added}"
    metadata, design = Metadata.fit_transform(n, merged, formula=formula)
    fitted = _with_intercepts(
        before, refitted[0], metadata, added=added, codes=codes, design=design
    )
    return fitted, design


def _with_intercepts(
    before: Fitted,
    fit: SubjectFit,
    metadata: Metadata,
    *,
    added: str,
    codes: NDArray[np.int32],
    design: Design,
) -> Fitted:
    """The correction with predicted intercepts as coefficients, measured from the first."""
    frozen, adjustable = before.correction, before.aim.adjustable
    u = np.where(adjustable, fit.subjects, 0.0)
    coefficients = np.zeros((metadata.kept, u.shape[1]))
    places = {name: k for k, name in enumerate(before.metadata.names)}
    of_subjects = np.zeros(metadata.kept, dtype=bool)
    for k, name in enumerate(metadata.names[: metadata.kept]):
        if metadata.terms[k] == added:
            of_subjects[k] = True
        else:
            coefficients[k] = frozen.coefficients[places[name]]
    columns = design.columns[:, : metadata.kept][:, of_subjects]
    first = np.flatnonzero((columns == 0).all(axis=1))
    base = u[codes[first[0]]] if first.size else np.zeros(u.shape[1])
    owners = np.array([codes[np.argmax(column)] for column in columns.T], dtype=int)
    coefficients[of_subjects] = u[owners] - base
    correction = LocationScale(
        scale=frozen.scale,
        shift=frozen.shift + (1 - frozen.scale) * base,
        coefficients=coefficients,
        nuisance=frozen.nuisance,
    )
    aim = replace(before.aim, location=before.aim.location + base)
    return Fitted(metadata, aim, correction, before.details)

r"""Batch normalization is batch-effect removal: the same functions, other names.

BatchNorm in training     Standardize by minibatch, times √(n/(n-1)): ddof 0 for 1
BatchNorm in evaluation   a frozen correction
InstanceNorm              the same as in training, the batch label being the sample
per-domain BN, AdaBN      Standardize by domain
ComBat                    tends to it as batches grow: shrinkage fades as 1 / n
logs                      turn what multiplies a batch into what is added to it
"""

from __future__ import annotations

from collections import Counter
from math import log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.nn.functional import instance_norm

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._norms import correction_of
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._claim import claim
from batchcorr.bridge.claims._measured import Numbers, near, reported, zero
from batchcorr.bridge.claims._tensors import NO_EPS, largest, normal, normalized
from batchcorr.bridge.nn import DomainBatchNorm1d
from batchcorr.errors import InputError, some
from batchcorr.methods.combat import ComBat
from batchcorr.methods.remove_batch_effect import RemoveBatchEffect
from batchcorr.methods.standardize import Standardize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

__all__ = ["unity"]

SIZES = (3, 10, 30, 100, 1000, 10_000)


@claim(
    "One function: BatchNorm and batch correction agree to rounding",
    __doc__,
    axes=("samples in a batch", "rms change by shrinkage"),
)
def unity(
    matrix: ArrayLike | None = None, batch: Sequence[object] | None = None
) -> Numbers:
    """Measure that normalization layers and batch correction are the same functions.

    Parameters
    ----------
    matrix, batch
        Expression beside activations: samples × genes on a log2 scale, and the batch of
        each sample; None: the activations alone. Genes constant in a batch are left out.

    Returns
    -------
    Claim
        Differences of torch's layers from `Standardize`, of shrinkage, and after logs.

    Raises
    ------
    InputError
        If only one of matrix and batch is given; if they do not fit each other, or a
        batch has a single sample; if values are not finite, or no gene varies.

    Examples
    --------
    >>> unity().measured["train"].holds
    True
    """
    if (matrix is None) != (batch is None):
        msg = "Give the matrix and the batch of its samples, or neither."
        raise InputError(msg)
    images, labels = _activations()
    rows = images.movedim(1, -1).reshape(-1, images.shape[1])
    same = dict(_identities(rows, labels, images))
    positive = {"simulated": torch.exp(normal(40, 100))}
    if matrix is not None and batch is not None:
        rows, labels = _expression(matrix, batch)
        given = dict(_identities(rows, labels, rows[:, None, :]))
        same = {  # the worse, and NaN is
            k: max(same[k], given[k], key=lambda n: (not n.holds, n.value))
            for k in same
        }
        positive["arrays"] = torch.exp2(rows)
    yield from same.items()
    yield from _divisors()
    yield from _logs(positive)
    yield from _shrinkage()


def _expression(matrix: ArrayLike, batch: Sequence[object]) -> tuple[Tensor, list[str]]:
    """Genes that vary in every batch, and the batch of each sample."""
    x, labels = np.asarray(matrix, dtype=np.float64), [str(label) for label in batch]
    sizes = Counter(labels)
    if x.ndim != 2 or len(x) != len(labels) or min(sizes.values(), default=0) < 2:
        msg = (
            "The matrix must be samples × genes, with a batch for each sample and two "
            f"samples in every batch: its shape is {x.shape}, and the batches are "
            f"{some(f'{label} ({size})' for label, size in sizes.items())}."
        )
        raise InputError(msg)
    if not np.isfinite(x).all():
        msg = "The matrix holds NaN or infinite values: leave out these genes."
        raise InputError(msg)
    by_batch = (x[np.asarray(labels) == label] for label in sizes)
    varies = np.all([np.ptp(rows, axis=0) > 0 for rows in by_batch], axis=0)
    if not varies.any():
        msg = "Every gene is constant in a batch, so there is nothing to standardize."
        raise InputError(msg)
    return torch.as_tensor(x[:, varies]), labels


# -- the same function -----------------------------------------------------------------


def _activations() -> tuple[Tensor, list[str]]:
    """What a convolution makes of 48 images of three domains, and each row's domain."""
    pick = torch.arange(3).repeat_interleave(16)
    gain, offset = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.0, 1.0, -0.5])
    images = normal(48, 3, 8, 8) * gain[pick, None, None, None]
    with torch.no_grad():
        out = nn.Conv2d(3, 8, 3).double()(images + offset[pick, None, None, None])
    return out, [f"domain {k}" for k in pick.repeat_interleave(36).tolist()]


def _standardized(x: Tensor, labels: Sequence[object], *, ddof: int = 1) -> Tensor:
    """The package's own standardization by batch, on the tensor itself."""
    out: Tensor = Standardize(target="unit").fit_transform(x, batch=list(labels))
    if ddof == 0:
        sizes = Counter(labels)
        factor = [sqrt(sizes[k] / (sizes[k] - 1)) for k in labels]
        out = out * torch.tensor(factor, dtype=x.dtype)[:, None]
    return out


def _identities(x: Tensor, labels: list[str], samples: Tensor) -> Numbers:
    """The largest difference of each layer of torch from the same act of this package.

    On rows x of these domains, and for InstanceNorm on samples (N, C, …).
    """
    options: dict[str, Any] = {"eps": NO_EPS, "momentum": None, "affine": False}
    channels, domains = x.shape[1], sorted(set(labels))
    own, adapted = torch.empty_like(x), torch.empty_like(x)
    for domain in domains:
        rows = torch.tensor([domain == label for label in labels])
        norm = nn.BatchNorm1d(channels, **options).double()
        own[rows] = norm(x[rows])
        adapted[rows] = norm.eval()(x[rows])
    small = x[[k for k, label in enumerate(labels) if label == labels[0]][:144]]
    layer = DomainBatchNorm1d(channels, domains, **options).double()
    layer(x, labels)
    frozen = nn.BatchNorm1d(channels, momentum=None).double()
    nn.init.normal_(frozen.weight), nn.init.normal_(frozen.bias)
    frozen(x)
    instances, normed = (
        value.movedim(1, -1).reshape(-1, samples.shape[1])
        for value in (samples, instance_norm(samples, eps=NO_EPS))
    )
    each = np.repeat(np.arange(len(samples)), len(instances) // len(samples)).tolist()
    combat = ComBat(shrink=False).fit(x, batch=labels)
    location, scale = map(torch.as_tensor, (combat.aim_.location, combat.aim_.scale))
    scores = (combat.transform(x, batch=labels) - location) / scale
    variance = frozen.get_buffer("running_var") / x.var(0)
    correction = tensor_affine(x, correction_of(frozen))
    alone = _standardized(small, [0] * len(small), ddof=0)
    by_domain, by_sample = (
        _standardized(rows, batch, ddof=0)
        for rows, batch in ((x, labels), (instances, each))
    )
    plain, layer_out = _standardized(x, labels), layer.eval()(x, labels)
    pairs = {  # key, what, torch's, ours
        "train": ("BN(train) = Standardize, ddof 0", normalized(small), alone),
        "eval": ("BN(eval) = frozen correction", frozen.eval()(x), correction),
        "running_var": ("running_var = variance, ddof 1", variance, 1),
        "domain": ("per-domain BN = batch is the domain", own, by_domain),
        "adabn": ("AdaBN = Standardize by domain", adapted, plain),
        "domain_layer": ("DomainBatchNorm (eval) = Standardize", layer_out, plain),
        "combat": ("ComBat, no shrinkage = Standardize", scores, plain),
        "instance": ("InstanceNorm = batch is the sample", normed, by_sample),
    }
    for key, (what, torches, ours) in pairs.items():
        yield key, zero(what, largest(torches - ours), 1e-12)


def _divisors() -> Numbers:
    """BN in training in float32, and against the divisor n - 1."""
    n = 144
    x = normal(n, 8)
    single = largest(normalized(x.float()) - _standardized(x, [0] * n, ddof=0))
    off = largest(normalized(x) - _standardized(x, [0] * n))
    yield "train_float32", zero("BN(train) in float32", single, 1e-5)
    yield "train_ddof_1", reported("BN(train) against ddof 1", off)


# -- shrinkage, and logs ---------------------------------------------------------------


def _shrinkage() -> Numbers:
    """What shrinkage changes, by the size of a batch.

    Three batches × 100 features; γ ~ N(0, 0.1²), log δ ~ N(0, 0.3²), noise of sd 1.
    """
    change = {}
    for n in SIZES:
        torch.default_generator.manual_seed(0)
        location, scale = 0.1 * normal(3, 1, 100), torch.exp(0.3 * normal(3, 1, 100))
        x = (location + scale * normal(3, n, 100)).reshape(-1, 100)
        codes = np.repeat(np.arange(3), n)
        shrunken, plain = (
            ComBat(shrink=shrink).fit_transform(x, batch=codes)
            for shrink in (True, False)
        )
        change[n] = float((shrunken - plain).square().mean().sqrt())
    rate = change[1000] / change[10_000]
    what = "shrinkage at n = 1,000 over 10,000"
    yield "shrinkage_rate", near(what, rate, 10, 0.2)
    for n, value in change.items():
        what, curve = f"shrinkage at n = {n:,}", "ComBat's shrinkage"
        yield f"shrinkage_{n}", reported(what, value, curve=curve, at=n)


def _logs(positive: dict[str, Tensor]) -> Numbers:
    """What linear removal leaves of a multiplicative effect, on logs and without.

    A positive x is one batch, and x times an effect of each feature another: without
    the batch the two must be the same.
    """
    for name, x in positive.items():
        both = torch.log(torch.cat([x, x * torch.exp(0.7 * normal(1, x.shape[1]))]))
        out = RemoveBatchEffect().fit_transform(both, batch=np.repeat([0, 1], len(x)))
        off = largest(out[: len(x)] - out[len(x) :]) / largest(both)
        yield f"log, {name}", zero(f"left after logs; {name}", off, 1e-12)
    mean = torch.linspace(1, 20, 200, dtype=torch.float64)
    off = largest(torch.log1p(4 * mean) - torch.log1p(mean) - log(4))
    what = "log1p: off at a mean of 1, log 8/5"
    yield "log1p", near(what, off, log(1.6), 1e-9)
    x, codes = normal(1, 4000) + 0.3 * normal(40, 4000), np.repeat([0, 1], 20)
    x[20:] += log(2)
    for name, values in (("raw", torch.exp(x)), ("log", x)):
        squares = tensor_moments(values, codes, 2).squares  # which no shift changes
        ratio = (squares.max(dim=0).values / squares.min(dim=0).values).median()
        yield f"variance_{name}", reported(f"batch-variance ratio left, {name}", ratio)

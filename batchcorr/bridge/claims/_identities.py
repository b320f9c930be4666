r"""One table, every normalization of torch beside the same act of this package.

    r = 1 / √(M / (n - ddof) + ε),      s = -r x̄

is the correction that `tensor_moments` gives per batch; the layers of torch differ in
what a batch is, in ddof, and in when the statistics are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.nn.functional import batch_norm, instance_norm

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._norms import correction_of, normalizing, statistics_of
from batchcorr.bridge._rows import codes_of_rows, from_rows, to_rows
from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims._networks import largest, normal
from batchcorr.bridge.claims._optimizers import NO_EPS
from batchcorr.bridge.nn import DomainBatchNorm1d
from batchcorr.methods.combat import ComBat
from batchcorr.methods.standardize import Standardize
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from batchcorr.models.moments import Moments

__all__ = ["Table", "activations", "arrays", "identities", "unshrunken"]

EPS = 1e-5


@dataclass(frozen=True)
class Table:
    """Rows × features with a batch for each row, and what one instance is.

    Attributes
    ----------
    rows
        (n, C) in float64.
    codes, labels
        Batch of each row, as a number and as a label: (n,).
    instances
        The same values as (N, channels, …), for InstanceNorm.
    """

    rows: Tensor
    codes: NDArray[np.integer[Any]]
    labels: list[str]
    instances: Tensor


def activations() -> Table:
    """Return what a convolution makes of 48 images of three domains: 1728 rows, 8 channels."""
    domain = np.repeat(np.arange(3), 16)
    gain, offset = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.0, 1.0, -0.5])
    pick = torch.as_tensor(domain)
    images = normal(48, 3, 8, 8) * gain[pick, None, None, None]
    images = images + offset[pick, None, None, None]
    with torch.no_grad():
        out = nn.Conv2d(3, 8, 3).double()(images)
    codes = codes_of_rows(domain, out.shape)
    return Table(to_rows(out), codes, [f"domain {code}" for code in codes], out)


def arrays(matrix: Any, batch: Any) -> Table:
    """Return a matrix of samples × genes; an instance is a sample over its genes."""
    rows = torch.as_tensor(np.asarray(matrix, dtype=np.float64))
    labels = [str(label) for label in batch]
    codes = np.unique(labels, return_inverse=True)[1].astype(np.intp)
    return Table(rows, codes, labels, rows[:, None, :])


def standardization(moments: Moments, *, ddof: int, eps: float = EPS) -> LocationScale:
    """Return the correction that brings each batch to mean 0 and variance 1."""
    return normalizing(moments.mean, moments.squares / (moments.n - ddof), eps)


def standardized(
    x: Tensor, codes: NDArray[np.integer[Any]] | None, *, ddof: int = 0
) -> Tensor:
    """Return x with every batch at mean 0 and variance 1."""
    n_batches = 1 if codes is None else int(codes.max()) + 1
    correction = standardization(tensor_moments(x, codes, n_batches), ddof=ddof)
    out: Tensor = tensor_affine(x, correction, codes)
    return out


def identities(table: Table) -> dict[str, float]:
    """Return the largest difference of each layer from the same act done here."""
    x, codes, minibatch = table.rows, table.codes, table.rows[table.codes == 0][:144]
    trained = _batch_norm(minibatch)
    by_sample = np.arange(len(table.instances))
    sample_codes = codes_of_rows(by_sample, table.instances.shape)
    instances = standardized(to_rows(table.instances), sample_codes)
    single = minibatch.float()
    return {
        "train": largest(trained - standardized(minibatch, None)),
        "train_float32": largest(_batch_norm(single) - standardized(single, None)),
        "train_ddof_1": largest(trained - standardized(minibatch, None, ddof=1)),
        "instance": largest(
            instance_norm(table.instances, eps=EPS)
            - from_rows(instances, table.instances.shape)
        ),
        "domain": largest(_by_domain(table, _batch_norm) - standardized(x, codes)),
        "domain_layer": _domain_layer(table),
        "adabn": largest(_by_domain(table, _adapted) - _unit(table)),
        **_frozen(minibatch),
        "combat": _unshrunken_combat(table),
    }


def _batch_norm(x: Tensor) -> Tensor:
    out: Tensor = batch_norm(x, None, None, training=True, eps=EPS)
    return out


def _by_domain(table: Table, norm: Any) -> Tensor:
    """Return each domain's rows as a layer of its own makes them."""
    out = torch.empty_like(table.rows)
    for code in range(int(table.codes.max()) + 1):
        rows = torch.as_tensor(table.codes == code)
        out[rows] = norm(table.rows[rows])
    return out


def _adapted(x: Tensor) -> Tensor:
    """Return x as a BatchNorm makes it whose running statistics are those of x."""
    norm = nn.BatchNorm1d(x.shape[1], eps=NO_EPS, momentum=None, affine=False).double()
    norm(x)
    out: Tensor = norm.eval()(x)
    return out


def _unit(table: Table) -> Tensor:
    """Return `Standardize(target="unit")` of the table, on the tensor itself."""
    method = Standardize(target="unit")
    out: Tensor = method.fit_transform(table.rows, batch=table.labels)
    return out


def _domain_layer(table: Table) -> float:
    """Return how far `DomainBatchNorm1d` in evaluation is from `Standardize`."""
    layer = DomainBatchNorm1d(
        table.rows.shape[1],
        sorted(set(table.labels)),
        eps=NO_EPS,
        momentum=None,
        affine=False,
    ).double()
    layer(table.rows, table.labels)
    return largest(layer.eval()(table.rows, table.labels) - _unit(table))


def _frozen(x: Tensor) -> dict[str, float]:
    """Compare evaluation with the frozen correction, and running_var with ddof 1."""
    norm = nn.BatchNorm1d(x.shape[1], momentum=None).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    norm(x)
    moments = tensor_moments(x)
    _, variance = statistics_of(norm)
    own = moments.squares[0] / (moments.n[0] - 1)
    return {
        "eval": largest(norm.eval()(x) - tensor_affine(x, correction_of(norm))),
        "running_var": largest(variance / own - 1),
    }


def unshrunken(fitted: ComBat) -> LocationScale:
    """Return a fitted ComBat's correction as it is before shrinkage.

    With γ̂ and δ̂² for γ* and δ*²: r = 1 / δ̂, s = α̂ - r (α̂ + σ̂ γ̂).
    """
    aim, found = fitted.aim_, fitted.details_
    scale = 1 / np.sqrt(found["delta_hat"])
    shift = aim.location - scale * (aim.location + aim.scale * found["gamma_hat"])
    none = np.empty((0, scale.shape[1]))
    parts = (scale, shift, none, none)
    return LocationScale(*(torch.as_tensor(part) for part in parts))


def _unshrunken_combat(table: Table) -> float:
    """Return how far ComBat without shrinkage is from z-scores within batches."""
    fitted = ComBat().fit(table.rows, batch=table.labels)
    aim = fitted.aim_
    location, scale = torch.as_tensor(aim.location), torch.as_tensor(aim.scale)
    out = tensor_affine(table.rows, unshrunken(fitted), table.codes)
    return largest((out - location) / scale - _unit(table))

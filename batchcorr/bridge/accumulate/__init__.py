r"""Gradient accumulation and BatchNorm: what it costs, and the gradient it should give.

Adding up the gradients of micro-batches gives the gradient of the whole batch when the
loss is a mean or sum over samples, and samples do not meet. In a BatchNorm they meet:
each micro-batch is normalized by its own mean and variance, which is another function,
and a noisier one. `check` measures the difference, `exact` makes it vanish.

In both, `loss(model, batch)` runs the model on a batch, a tensor or any nesting of
tensors with the samples on axis 0, and returns a scalar: `reduction="mean"` says that it
is the mean over the samples, `"sum"` that it is their sum. Both measure whether it is.
"""

from __future__ import annotations

from batchcorr.bridge.accumulate._check import Cost, CostAt, check
from batchcorr.bridge.accumulate._exact import exact

__all__ = ["Cost", "CostAt", "check", "exact"]

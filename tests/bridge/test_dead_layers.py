"""A layer in which nothing varies: shrinkage ends where BatchNorm does, at β."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from batchcorr.bridge import recalibrate  # noqa: E402
from batchcorr.bridge.nn import ComBatNorm1d, DomainBatchNorm1d  # noqa: E402

DOUBLE = torch.float64


def test_a_dead_layer_gives_what_batch_norm_gives():
    x = torch.zeros(8, 6, dtype=DOUBLE, requires_grad=True)
    ours, theirs = ComBatNorm1d(6, dtype=DOUBLE), nn.BatchNorm1d(6, dtype=DOUBLE)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(ours.running_mean).all()
    assert torch.isfinite(ours.running_var).all()


@pytest.mark.parametrize("method", ["adabn", "combat", "auto"])
def test_equal_samples_recalibrate_to_finite_statistics(method):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)
    )
    model = model.double().eval()
    recalibrate(model, [torch.ones(4, 3, dtype=DOUBLE)], method)
    found = model(torch.ones(4, 3, dtype=DOUBLE))
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-9, rtol=0)


def test_an_unseen_domain_of_equal_samples_is_no_trouble():
    torch.manual_seed(0)
    layer = DomainBatchNorm1d(4, ["a"], unseen="shrink", dtype=DOUBLE)
    layer(torch.randn(20, 4, dtype=DOUBLE), domain=["a"] * 20)
    layer.eval()
    found = layer(torch.ones(3, 4, dtype=DOUBLE), domain=["new"] * 3)
    assert torch.isfinite(found).all()

"""One thread for torch, whose networks are small here; and a network that has learned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from batchcorr.bridge import profile
from tests.bridge.recalibrate_models import labelled, network


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained():
    """A network that knows its three classes, and its profile."""
    model, (x, y) = network().train(), labelled()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    return model, profile(model, [(x, y)])

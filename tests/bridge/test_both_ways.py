"""One shifted network, corrected as a table of features and as a model: they agree.

Bring the second domain's activations to the first's, and let the head run; or give the
BatchNorm in front of the head the second domain's statistics. With domains of one size
the two are the same map: ddof cancels, and with ε = 0 nothing else differs.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import batchcorr as bc
from batchcorr.bridge import capture, recalibrate

N = 60


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8, eps=1e-300), nn.ReLU(), nn.Linear(8, 3)
    )
    model = model.double().eval()
    with torch.no_grad():
        nn.init.normal_(model[1].weight)
        nn.init.normal_(model[1].bias)
    return model


@pytest.fixture
def domains(network):
    generator = torch.Generator().manual_seed(1)
    source, target = torch.randn(2, N, 5, generator=generator, dtype=torch.float64)
    recalibrate(network, [source], "adabn")  # what training would have left
    return source, 0.4 * target + torch.arange(5) / 3


@pytest.mark.parametrize(
    ("correct", "method"),
    [(bc.pp.standardize, "adabn"), (bc.pp.combat, "combat")],
    ids=["standardize", "combat"],
)
def test_a_corrected_table_and_a_recalibrated_model_agree(
    network, domains, correct, method
):
    adata = capture(
        network, list(domains), ["first"] * N + ["second"] * N, layers=["0"]
    )
    shifted = network(domains[1]).detach().numpy()
    correct(adata, "batch", reference="first")
    corrected = torch.tensor(adata.X[N:])
    by_table = network[1:](corrected).detach().numpy()
    with recalibrate(network, [domains[1]], method):
        by_model = network(domains[1]).detach().numpy()
    assert np.abs(by_table - by_model).max() < 1e-10 * np.abs(by_model).max()
    assert np.abs(by_table - shifted).max() > 0.1 * np.abs(shifted).max()
    # the first domain was the reference: neither way moves it
    assert np.array_equal(adata.X[:N], network[0](domains[0]).detach().numpy())


def test_batch_is_gone_from_both(network, domains):
    adata = capture(network, list(domains), ["first"] * N + ["second"] * N)
    before = adata.uns["layers"]["batch"]
    with recalibrate(network, [domains[1]], "adabn"):
        second = capture(network, [domains[1]], ["second"] * N)
    bc.pp.standardize(adata, "batch", reference="first")
    ours = bc.metrics.variance_explained(adata[:, adata.var["layer"] == "0"], "batch")
    normed = second[:, second.var["layer"] == "1"].X
    first = adata[:N, adata.var["layer"] == "1"].X
    assert before["0"] > 0.1
    assert abs(ours.batch) < 0.02
    assert np.allclose(normed.mean(0), first.mean(0), atol=1e-10)
    assert np.allclose(normed.std(0), first.std(0), atol=1e-10)

"""Labels beside the inputs: which are read, and which are said not to be."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.nn.functional import one_hot

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._classes import read_classes
from batchcorr.errors import CovariateWarning

CLASSES = torch.tensor([0, 1, 1, 2])


def loader(labels):
    return [(torch.ones(4, 3), labels), (torch.ones(4, 3), labels)]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integers_are_read(dtype):
    found = read_classes(list(read_batches(loader(CLASSES.to(dtype)))))
    assert found.tolist() == [0, 1, 1, 2] * 2


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (CLASSES.float(), "torch.float32, shape"),
        (CLASSES == 1, "torch.bool"),
        (CLASSES[:, None], "torch.int64, shape \\(4, 1\\)"),
        (one_hot(CLASSES), "one-hot rows, shape \\(4, 3\\)"),
        (one_hot(CLASSES).double(), "one-hot rows"),
    ],
    ids=["float", "bool", "column", "one-hot", "one-hot floats"],
)
def test_classes_in_another_form_are_said_not_to_be_read(labels, what):
    with pytest.warns(CovariateWarning, match=f"{what}.*eb_cov") as caught:
        assert read_classes(list(read_batches(loader(labels)))) is None
    assert len(caught) == 1


@pytest.mark.parametrize(
    "beside",
    [
        CLASSES + 0.5,
        torch.rand(4, 3),
        torch.ones(4, 3, 2),
        ["a", "b", "c", "d"],
        one_hot(CLASSES).to_sparse(),
        torch.zeros(4, 0),
    ],
    ids=["targets", "vectors", "images", "names", "sparse", "nothing"],
)
def test_what_is_no_class_is_passed_over_in_silence(beside):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_classes(list(read_batches(loader(beside)))) is None

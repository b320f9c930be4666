"""Labels beside the inputs: integers are classes, everything else is passed over."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._profiling import read_classes

CLASSES = torch.tensor([0, 1, 1, 2])


def read(labels):
    loader = [(torch.ones(4, 3), labels), (torch.ones(4, 3), labels)]
    return read_classes(list(read_batches(loader)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integers_are_read(dtype):
    assert read(CLASSES.to(dtype)).tolist() == [0, 1, 1, 2] * 2


@pytest.mark.parametrize(
    "beside",
    [CLASSES + 0.5, CLASSES == 1, one_hot(CLASSES), ["a", "b", "c", "d"]],
    ids=["targets", "bool", "one-hot", "names"],
)
def test_what_is_no_class_is_passed_over(beside):
    assert read(beside) is None

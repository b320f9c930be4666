"""Folding: a BatchNorm at inference is a frozen correction, and needs not be applied.

    r ∘ (W x + c) + s = (r ∘ W) x + (r ∘ c + s),     W (r ∘ x + s) + c = (W r) x + (c + W s)

In the order of work: `trace` follows the results of layers through one run, `plan` says
which layer takes up which correction, `weights` computes the new weights in a copy, and
`compare` holds it against the model.
"""

from __future__ import annotations

from batchcorr.bridge._fold.folding import Folded, fold

__all__ = ["Folded", "fold"]

"""Folding: a BatchNorm at inference is a frozen correction, and needs not be applied.

    r ∘ (W x + c) + s = (r ∘ W) x + (r ∘ c + s),     W (r ∘ x + s) + c = (W r) x + (c + W s)

In the order of work: `trace` records what is computed from what, `plan` says which layer
takes up which correction (`moves`: what the correction may pass on its way), `weights`
computes the new weights, `folding` changes a copy and compares it with the model.
"""

from __future__ import annotations

from batchcorr.bridge._fold.folding import Folded, fold

__all__ = ["Folded", "fold"]

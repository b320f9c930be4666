"""Folding: a BatchNorm at inference is a frozen correction, and needs not be applied.

    r ∘ (W x + c) + s = (r ∘ W) x + (r ∘ c + s),     W (r ∘ x + s) + c = (W r) x + (c + W s)

In the order of work: `example` reads the inputs, `sharing` gives every name a module of
its own, `exported` and `flow` find out what is computed from what, `backward` and
`forward` carry a layer's map to where weights can take it up (`rules` says what it may
pass on the way), `plan` tries all layers, `rewrite` and `weights` change the copy,
`verify` measures.
"""

from __future__ import annotations

from batchcorr.bridge._fold.folding import fold
from batchcorr.bridge._fold.result import Folded

__all__ = ["Folded", "fold"]

"""BatchNorm statistics for a new domain, from a few of its samples without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from batchcorr.bridge._estimators import (
    EmpiricalBayes,
    adabn,
    combat,
    keep_classes,
    mixed,
)
from batchcorr.bridge._layerwise import correct, put, restore, snapshot
from batchcorr.bridge._norms import batch_norms, require_model
from batchcorr.bridge._profile import Profile, require_weights
from batchcorr.bridge._running import require_evaluation, wide
from batchcorr.errors import InputError, MissingKeyError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from batchcorr.bridge._layerwise import Statistics

__all__ = ["METHODS", "Recalibration", "recalibrate"]

METHODS = ("auto", "adabn", "mix", "combat", "eb", "eb_cov")
PSEUDO_COUNT = 16.0


@dataclass(repr=False)
class Recalibration:
    """What `recalibrate` did to a model; as context manager it undoes it at the end.

    Parameters
    ----------
    method
        The method that was used; never "auto".
    samples
        Samples of the domain.
    layers
        One row for each layer in the order of their calls: `channels`; `moved`, root mean
        square of (new - old mean)/old sd; `scaled`, geometric mean of new/old sd.
    classes
        Share of each class that eb_cov assumed, (K,); None for other methods.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.BatchNorm1d(1)).double().eval()
    >>> x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> with recalibrate(model, [x], "adabn") as done:
    ...     inside = model[0].running_mean.item()
    >>> inside, model[0].running_mean.item(), done.method
    (2.0, 0.0, 'adabn')
    """

    method: str
    samples: int
    layers: pd.DataFrame
    classes: NDArray[np.float64] | None
    _restore: Callable[[], None] = field(init=False, default=lambda: None)

    def __repr__(self) -> str:
        n = f"{self.samples} sample{'s' * (self.samples != 1)}"
        return f"Recalibrated by {self.method} from {n}\n{self.layers.round(3)}"

    def undo(self) -> None:
        """Put the statistics back as they were before, to the bit."""
        self._restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def recalibrate(
    model: nn.Module,
    loader: Iterable[Any],
    method: str = "auto",
    *,
    profile: Profile | None = None,
    alpha: float | None = None,
    pseudo_count: float | None = None,
) -> Recalibration:
    """Set a model's BatchNorm statistics to those of a new domain.

    Weights stay, labels are not read, dropout is off. Layer by layer: what a layer
    receives is measured after all layers before it have been corrected.

    Parameters
    ----------
    model
        A torch model, changed in place: running means and variances, nothing else.
    loader
        Samples of one domain: a DataLoader, or a list of tensors, tuples or mappings.
        Every sample counts the same, however it is batched.
    method
        "adabn": the domain's own statistics (ddof 0, as BatchNorm in training).
        "mix": mixed with the old ones. "combat": ComBat's shrinkage across channels.
        "eb": shrinkage that knows from a profile how supports of this size err.
        "eb_cov": the same for domains in which classes have other shares than in the
        source, which are estimated; of one sample it is eb. "auto": combat; with a
        profile eb, or eb_cov where classes are as uneven as if half of them were missing
        and the model gives logits: a tensor, `logits`, or the first item of a tuple.
    profile
        Of the source, from `profile`; eb and eb_cov need it.
    alpha
        For "mix": the share of the domain, 0 to 1.
    pseudo_count
        For "mix": the share is n/(n + pseudo_count), n samples; 16 if neither is given.

    Returns
    -------
    Recalibration
        The account, with `undo()`. In a `with` statement it undoes at the end.

    Raises
    ------
    InputError
        If the model has no BatchNorm layers, lazy ones, or some in training mode; if a
        layer is called twice in a run, in some minibatches only, or keeps no statistics;
        if values are not finite, the loader is an iterator, or of wrong shape or device;
        if adabn has one row, or statistics do not fit a layer (float16); if the profile
        is missing, has no classes, or is another model's (γ, β or weights before a layer
        differ by more than 1 %). The model is then untouched.
    MissingKeyError
        If there is no such method.

    Notes
    -----
    Of a single minibatch one forward pass; of several one run over the loader, and one
    for each layer, up to it. eb_cov takes some ten of those, and is experimental: it was
    measured on one data set (digits). With many samples every method tends to adabn; on
    networks of convolutions they gain little over it from a few samples on.
    `torch.optim.swa_utils.update_bn` measures with dropout on, all layers at once, by an
    average over minibatches. Frozen BatchNorms (torchvision's detectors) are set too.

    References
    ----------
    adabn: Li et al., arXiv:1603.04779. mix: Schneider et al., arXiv:2006.16971, and
    meta-learnt, TaskNorm, arXiv:2003.03284. combat: Johnson, Li & Rabinovic (2007).
    eb: kin of James-Stein BatchNorm, arXiv:2312.00313. Domains as batches of BatchNorm
    in cell images: BEN, Lin & Lu (2022), and CS-ARM-BN, arXiv:2604.20824.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    >>> domain = 2 + torch.randn(100, 3, generator=generator)
    >>> done = recalibrate(model.eval(), [domain], "adabn")
    >>> bool(model(domain).mean().abs() < 1e-6)
    True
    """
    share = _share(method, profile, alpha, pseudo_count)
    model = require_model(model)
    norms = batch_norms(model)
    require_evaluation(norms, "where BatchNorm would move the new statistics on")
    if profile is not None:
        require_weights(profile, model)
    before = snapshot(norms)
    run = partial(correct, model, loader, norms)
    classes: NDArray[np.float64] | None = None
    try:
        if profile is None or method in ("adabn", "mix", "combat"):
            used = "combat" if method == "auto" else method
            plain = {"adabn": adabn, "mix": mixed(share), "combat": combat}
            new, samples = run(plain[used])
        else:
            used = "eb"
            new, samples = run(EmpiricalBayes(profile))
            if method != "eb" and len(profile.shares) and samples > 1:
                better = keep_classes(
                    *(model, loader, profile, run),
                    lambda: restore(norms, before),
                    if_uneven=samples if method == "auto" else None,
                )
                if better is not None:
                    used, (new, classes) = "eb_cov", better
                put(norms, new)
    except BaseException:
        restore(norms, before)
        raise
    done = Recalibration(used, samples, _table(before, new), classes)
    done._restore = partial(restore, norms, before)
    return done


def _share(
    method: str,
    profile: Profile | None,
    alpha: float | None,
    pseudo_count: float | None,
) -> Callable[[int], float]:
    """The share of n samples in a mix; refuse what does not go together."""
    if method not in METHODS:
        msg = f"There is no method {method!r}. {did_you_mean(method, METHODS)}"
        raise MissingKeyError(msg)
    needed = Profile if method.startswith("eb") else Profile | None
    if not isinstance(profile, needed):
        msg = (
            f'method="{method}" needs profile=, what profile(model, source_loader) '
            f'returned or Profile.load(path) reads, not {profile!r:.60}; "combat" needs '
            "none."
        )
        raise InputError(msg)
    if method == "eb_cov" and profile is not None and not len(profile.shares):
        msg = (
            "The profile has no classes: make it from a source loader that gives "
            "(inputs, labels), one integer 0 … K-1 for each sample (labels.long(), or "
            'labels.argmax(1) of one-hot rows), or use method="eb".'
        )
        raise InputError(msg)
    count = PSEUDO_COUNT if pseudo_count is None else pseudo_count
    given = (alpha is not None) + (pseudo_count is not None)
    fits = isinstance(alpha or 0, Real) and isinstance(count, Real)
    if not (
        fits and given <= (method == "mix") and 0 <= (alpha or 0) <= 1 and count >= 0
    ):
        msg = (
            'alpha and pseudo_count are for method="mix", one of them: alpha is the share '
            "of the domain, a number 0 to 1, pseudo_count a number of samples, 0 or more."
        )
        raise InputError(msg)
    return lambda n: n / (n + count) if alpha is None else alpha


def _table(old: Statistics, new: Statistics) -> pd.DataFrame:
    """What changed, one row for each layer."""
    rows = {}
    for name in new:
        (mean, variance), (new_mean, new_variance) = map(wide, old[name]), new[name]
        varies = variance > 0
        shift = (new_mean - mean)[varies] / variance[varies].sqrt()
        ratio = (new_variance[varies] / variance[varies]).clamp_min(1e-300).log()
        rows[name] = {
            "channels": len(mean),
            "moved": float(shift.square().mean().sqrt()),
            "scaled": float((ratio.mean() / 2).exp()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

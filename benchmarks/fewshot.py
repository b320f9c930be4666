"""Few-shot recalibration: how many samples of a new domain do BatchNorm layers need?

python benchmarks/fewshot.py                     the tables of README.md, seeds 20-29
python benchmarks/fewshot.py --seeds 0 1 2       does it run?
python benchmarks/fewshot.py --nets mlp --supports iid

Digits of scikit-learn (8 x 8): 900 images to train on, 450 from which supports are
drawn, 447 to test on. Eight shifts make the new domain; accuracy is the mean over them.
A support is drawn at random, or from two random classes (as many as there are, if they
have fewer than n). "tuned" is the mix whose share was chosen with test labels, for each
n, on the seven other shifts: the best fixed rule that is not told the truth.
"""

from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, rotate
from sklearn.datasets import load_digits
from torch import nn

from batchcorr.bridge import profile, recalibrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from batchcorr.bridge import Profile

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
HARM_AT = 4


# -- the eight shifts ------------------------------------------------------------------


def contrast(x: NDArray[Any], _: np.random.Generator) -> NDArray[Any]:
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return mean + 0.4 * (x - mean)


def pixel_gain(x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    return x * np.exp(rng.normal(0, 0.7, x.shape[1:]))


SHIFTS: dict[str, Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]] = {
    "none": lambda x, _: x,
    "gain and offset": lambda x, _: 0.55 * x + 0.35,
    "contrast": contrast,
    "pixel gain": pixel_gain,
    "blur": lambda x, _: gaussian_filter(x, (0, 0, 0.85, 0.85)),
    "rotation": lambda x, _: rotate(x, 25, axes=(2, 3), reshape=False, order=1),
    "noise": lambda x, rng: x + rng.normal(0, 0.3, x.shape),
    "gamma": lambda x, _: x**0.4,
}


# -- the networks ----------------------------------------------------------------------


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU()),
        *(nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU()),
        nn.Linear(64, 10),
    )


def cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        nn.MaxPool2d(2),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


NETS = {"mlp": mlp, "cnn": cnn}


class Trained(NamedTuple):
    """A network, what it knows of its source, and images that it has not seen."""

    model: nn.Module
    profile: Profile
    images: NDArray[np.float64]
    labels: NDArray[np.int64]


def trained(kind: str, seed: int) -> Trained:
    """Train on 900 images; return the others, 450 for supports first."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 1, 8, 8)
    torch.manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(x))
    train, rest = order[:900], order[900:]
    inputs, labels = tensor(x[train]), torch.as_tensor(y[train])
    model = NETS[kind]()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(30):
        for rows in torch.randperm(900).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    known = profile(model.eval(), [(inputs, labels)])
    return Trained(model, known, x[rest], y[rest])


def tensor(x: NDArray[Any]) -> torch.Tensor:
    return torch.as_tensor(x.astype(np.float32))


# -- what is compared ------------------------------------------------------------------


def methods(known: Profile) -> dict[str, dict[str, Any]]:
    """Return how `recalibrate` is called, by name."""
    return {
        "AdaBN": {"method": "adabn"},
        **{f"α = {share}": {"method": "mix", "alpha": share} for share in SHARES},
        "pseudo-count 16": {"method": "mix", "pseudo_count": 16},
        "ComBat": {"method": "combat"},
        "EB": {"method": "eb", "profile": known},
        "EB-cov": {"method": "eb_cov", "profile": known},
        "auto": {"method": "auto", "profile": known},
    }


def accuracy(model: nn.Module, x: torch.Tensor, y: NDArray[np.int64]) -> float:
    with torch.no_grad():
        return 100 * float((model(x).argmax(dim=1).numpy() == y).mean())


def support(
    labels: NDArray[np.int64], n: int, kind: str, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the places of a support among the 450."""
    pool = np.arange(450)
    if kind == "two classes":
        two = rng.permutation(10)[:2]
        pool = pool[np.isin(labels[:450], two)]
    return rng.permutation(pool)[:n]


def measured(net: Trained, kind: str, seed: int) -> Iterator[tuple[Any, ...]]:
    """Yield (method, shift, n, accuracy) of one network."""
    for number, (name, shift) in enumerate(SHIFTS.items()):
        rng = np.random.default_rng([seed, number])
        x = tensor(shift(net.images, rng))
        test, truth = x[450:], net.labels[450:]
        source = accuracy(net.model, test, truth)
        for n in SIZES:
            few = [x[support(net.labels, n, kind, rng)]]
            yield "source", name, n, source
            for method, how in methods(net.profile).items():
                if method == "AdaBN" and n == 1 and isinstance(net.model[2], ROWS):
                    continue  # one row has no variance: refused
                with recalibrate(net.model, few, **how):
                    yield method, name, n, accuracy(net.model, test, truth)


ROWS = nn.BatchNorm1d


def collect(kind: str, seeds: list[int], nets: dict[int, Trained]) -> Any:
    """Return accuracies: method → (seeds, shifts, sizes), NaN where refused."""
    shifts = list(SHIFTS)
    found: dict[str, NDArray[np.float64]] = {}
    for i, seed in enumerate(seeds):
        for method, shift, n, value in measured(nets[seed], kind, seed):
            shape = (len(seeds), len(SHIFTS), len(SIZES))
            table = found.setdefault(method, np.full(shape, np.nan))
            table[i, shifts.index(shift), SIZES.index(n)] = value
    return found


def tuned(found: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mix chosen for each size on the other shifts, with labels."""
    names = ["source", *(f"α = {share}" for share in SHARES), "AdaBN"]
    stack = np.stack([found[name] for name in names])  # rules, seeds, shifts, sizes
    result = np.empty(stack.shape[1:])
    for shift in range(stack.shape[2]):
        others = np.delete(stack, shift, axis=2).mean(axis=(1, 2))
        best = np.nanargmax(others, axis=0)
        for size, rule in enumerate(best):
            result[:, shift, size] = stack[rule, :, shift, size]
    return result


def report(title: str, found: dict[str, NDArray[np.float64]]) -> None:
    """Print a table, and the worst change of a shift against doing nothing."""
    found = found | {"tuned α(n)": tuned(found)}
    rows = ["source", "AdaBN", "α = 0.5", "pseudo-count 16", "tuned α(n)"]
    rows += ["ComBat", "EB", "EB-cov", "auto"]
    print(f"\n| {title} | " + " | ".join(map(str, SIZES)) + f" | harm, n={HARM_AT} |")
    print("|---" * (len(SIZES) + 2) + "|")
    at = SIZES.index(HARM_AT)
    for name in rows:
        means = found[name].mean(axis=(0, 1))
        cells = ["–" if np.isnan(value) else f"{value:.1f}" for value in means]
        change = (found[name] - found["source"]).mean(axis=0)[:, at].min()
        print(f"| {name} | " + " | ".join(cells) + f" | {round(change, 1) + 0.0:.1f} |")
    gain = (found["EB"] - found["tuned α(n)"]).mean(axis=1)  # seeds, sizes
    error = gain.std(axis=0, ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0 * gain
    pairs = zip(gain.mean(axis=0), np.ravel(error), strict=False)
    print("EB - tuned, s.e.:", ", ".join(f"{m:+.1f} ({e:.1f})" for m, e in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20, 30)))
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    kinds = ["iid", "two classes"]
    parser.add_argument("--supports", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    warnings.simplefilter("error")
    torch.set_num_threads(chosen.threads)
    for net in chosen.nets:
        nets = {seed: trained(net, seed) for seed in chosen.seeds}
        for kind in chosen.supports:
            found = collect(kind, chosen.seeds, nets)
            report(f"{net.upper()}, {kind} support", found)


if __name__ == "__main__":
    main()

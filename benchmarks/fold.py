"""How much faster a network runs without its BatchNorm layers, as ratios.

python benchmarks/fold.py            about 3 minutes
python benchmarks/fold.py --quick    does it run?

The same model before and after `bridge.fold`, turn by turn in one process, one thread,
float32. A ratio over 1 means that the folded model is faster.
"""

from __future__ import annotations

import argparse
from statistics import median

import measure
import torch
from measure import Settings, Task, compare, table, times_floor
from torch import nn

from batchcorr.bridge import fold

PACKAGES = ["batchcorr", "torch"]


def stack(*blocks: list[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(layer for block in blocks for layer in block))


def conv(n_in: int, n_out: int, **options: int) -> list[nn.Module]:
    layer = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False, **options)
    return [layer, nn.BatchNorm2d(n_out), nn.ReLU()]


def pointwise(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]


def dense(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU()]


def models() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    image = torch.randn(8, 32, 56, 56)
    convolutions = stack(conv(32, 64), *(conv(64, 64) for _ in range(3)))
    depthwise = stack(
        *(
            block
            for _ in range(4)
            for block in (conv(32, 32, groups=32), pointwise(32, 32))
        )
    )
    mlp = stack(dense(256, 512), *(dense(512, 512) for _ in range(3)))
    return {
        "conv stack, batch 8": (convolutions, image),
        "depthwise stack, batch 8": (depthwise, image),
        "MLP, batch 512": (mlp, torch.randn(512, 256)),
        "MLP, batch 1": (mlp, torch.randn(1, 256)),
    }


def trained(model: nn.Module) -> nn.Module:
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


def repeated(model: nn.Module, x: torch.Tensor, times: int) -> Task:
    def run() -> None:
        with torch.inference_mode():
            for _ in range(times):
                model(x)

    return Task(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    settings = Settings(quick=parser.parse_args().quick, patience=40)
    if settings.quick:
        settings = Settings(quick=True, repetitions=2, patience=1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(measure.machine(PACKAGES))
    rows, remarks = [], []
    for name, (model, x) in models().items():
        folded = fold(trained(model), x)
        times = settings.size(400 if len(x) == 1 else 10, 1)
        found = compare(
            {
                "given": repeated(model, x, times),
                "folded": repeated(folded.model, x, times),
            },
            settings,
        )
        rows.append(
            [
                name,
                f"{len(folded.folded)} of {len(folded.folded) + len(folded.kept)}",
                f"{folded.error:.0e}",
                f"{median(found.times('given')) / times * 1e3:.2f} ms",
                times_floor(found.ratio("given", to="folded")),
            ]
        )
        remarks.append(f"{name}: {found.remark()}")
    table(["model", "folded", "error", "time before", "before / after"], rows)
    print("\n".join(remarks))


if __name__ == "__main__":
    main()

"""What the tests of folding share: models with statistics as if trained, and the check."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchcorr.bridge import fold

torch.set_num_threads(1)  # the tensors are small, and other tests may run beside


def trained(model, seed=0):
    """Give every BatchNorm statistics, γ (some negative, some 0) and β; eval, float64."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
        for norm in model.modules():
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                norm.running_mean.normal_(generator=generator)
                norm.running_var.uniform_(0.3, 3, generator=generator)
                if norm.affine:
                    norm.weight.normal_(generator=generator)
                    norm.weight[0] = 0
                    norm.bias.normal_(generator=generator)
    return model


def positive(model):
    """Make every γ positive."""
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and norm.affine:
            with torch.no_grad():
                norm.weight.abs_().add_(0.1)
    return model


def sample(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def norms_in(model):
    """Names of all BatchNorms, one for every name that leads to one."""
    return {
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _BatchNorm)
    }


def snapshot(model):
    """All that folding must leave as it is."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [(name, id(p), p.requires_grad) for name, p in model.named_parameters()],
        [(name, id(m), m.training) for name, m in model.named_modules()],
        torch.get_rng_state(),
    )


def require_untouched(model, before):
    values, *rest, state = before
    now, *rest_now, state_now = snapshot(model)
    assert rest_now == rest
    assert now.keys() == values.keys()
    assert all(torch.equal(now[name], values[name]) for name in values)
    assert torch.equal(state, state_now)


def leaves(out):
    return [out] if isinstance(out, torch.Tensor) else list(out)


def require_equal(result, model, inputs, tolerance=1e-10):
    """The folded model does what the given one does, on inputs fold never saw."""
    with torch.no_grad():
        for x, y in zip(
            leaves(result.model(*inputs)), leaves(model(*inputs)), strict=True
        ):
            assert x.shape == y.shape
            size = y.abs().max().clamp(min=1e-300)
            assert (x - y).abs().max() / size <= tolerance


def checked(model, *inputs):
    """Fold, and check all that holds for every model."""
    before = snapshot(model)
    result = fold(model, inputs)
    require_untouched(model, before)
    names = norms_in(model)
    assert result.folded.keys() | result.kept.keys() == names
    assert not result.folded.keys() & result.kept.keys()
    assert norms_in(result.model) == set(result.kept)
    assert all(result.kept.values())
    assert type(result.model) is type(model)
    assert result.error == max(result.errors.values()) <= 1e-10
    for n in (1, 2, 5):
        fresh = tuple(sample(n, *x.shape[1:], seed=n + 10) for x in inputs)
        require_equal(result, model, fresh)
    require_state_dict(result, model, inputs)
    return result


def require_state_dict(result, model, inputs):
    """The folded weights load into a folded model that has other ones."""
    other = copy.deepcopy(result.model)
    with torch.no_grad():
        for value in [*other.parameters(), *other.buffers()]:
            value.zero_()
    other.load_state_dict(result.model.state_dict())
    with torch.no_grad():
        outs = leaves(other(*inputs)), leaves(result.model(*inputs))
    assert all(torch.equal(x, y) for x, y in zip(*outs, strict=True))
    gone = {
        f"{name}."
        for name in result.folded
        if name in dict(model.named_modules(remove_duplicate=False))
    }
    assert not [
        key for key in result.model.state_dict() if key.startswith(tuple(gone or "?"))
    ]


class Chain(nn.Module):
    """Named layers, and a function that says how they are used."""

    def __init__(self, run, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = run

    def forward(self, *inputs):
        return self.run(self, *inputs)

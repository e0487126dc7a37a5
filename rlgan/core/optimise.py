"""The one place where gradients become parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def adam(parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> torch.optim.Adam:
    """Adam in one fused kernel, its learning rate a 0-d tensor on the device so that a schedule can change it."""
    parameters = list(parameters)
    device = parameters[0].device
    rate = torch.tensor(lr, device=device)
    return torch.optim.Adam(parameters, lr=rate, eps=eps, fused=True, capturable=device.type == "cuda")


def optimise(optimiser: Optimizer, loss: Tensor, max_norm: float) -> Tensor:
    """Backward, clip the global norm, step. Returns the norm before clipping, ()."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)
    optimiser.step()
    return norm


@torch.no_grad()
def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the target's parameters towards the online ones by tau; 1 copies them."""
    if tau == 1.0:
        torch._foreach_copy_(list(target.parameters()), list(online.parameters()))
    else:
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)

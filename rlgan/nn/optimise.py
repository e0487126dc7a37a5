"""The one place where gradients become parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rlgan.store.state import Saved


class Adam(Saved):
    """Adam (Kingma & Ba 2015) as one fused kernel over all parameters.

    torch.optim's own costs a tenth of a small update in Python. The learning rate ``lr`` () and the count of steps are
    tensors on the device, so that schedules and captured graphs can change them.

    ``eps`` is added to the root of the corrected mean of squares, as in algorithm 1; with ``eps_hat`` to that of the
    uncorrected one, as in the reordered form of section 2 and in TensorFlow 1: 32 times as much in the first step.
    """

    kept = ("lr", "count", "decayed", "first", "second")

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        eps_hat: bool = False,
    ) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.betas, self.eps, self.eps_hat = betas, eps, eps_hat
        self.fixed: dict[str, Any] = {"beta1": betas[0], "beta2": betas[1], "weight_decay": 0.0, "eps": eps}
        self.fixed |= {"amsgrad": False, "maximize": False}
        device = self.parameters[0].device
        self.lr = torch.tensor(lr, device=device)
        self.count = torch.zeros((), device=device)
        self.decayed = torch.ones(2, device=device)
        """Both betas to the power of ``count``, kept by compiled code: it would raise them anew for every element."""
        self.late = torch.full((), 1e9, device=device)
        """A count of steps at which the kernel corrects nothing any more."""
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))

    def step(self, gradients: list[Tensor], divisor: Tensor) -> None:
        """Step along the gradients divided by ``divisor`` ()."""
        self.count.add_(1)
        if torch.compiler.is_compiling():
            self._formula(gradients, divisor)
            return
        count, rate = self.count, self.lr
        if self.eps_hat:
            corrected = [1 - beta ** count.double() for beta in self.betas]
            count, rate = self.late, (self.lr * corrected[1].sqrt() / corrected[0]).float()
        # the kernel walks memory: of a gradient that lies otherwise, each number would go to another weight
        gradients = [
            g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        steps = [count] * len(self.parameters)
        torch._fused_adam_(
            self.parameters, gradients, self.first, self.second, [], steps, lr=rate, grad_scale=divisor, **self.fixed
        )

    def _formula(self, gradients: list[Tensor], divisor: Tensor) -> None:
        """The same step in plain operations, which the compiler fuses; it cannot see into the fused kernel."""
        beta1, beta2 = self.betas
        self.decayed[0].mul_(beta1)
        self.decayed[1].mul_(beta2)
        rate = self.lr / (1 - self.decayed[0])
        scale = (1 - self.decayed[1]).sqrt()
        eps = self.eps / scale if self.eps_hat else self.eps
        for p, g, first, second in zip(self.parameters, gradients, self.first, self.second, strict=True):
            g = g / divisor
            first.lerp_(g, 1 - beta1)
            second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            p.sub_(rate * first / (second.sqrt() / scale + eps))


class RMSProp(Saved):
    """RMSProp (Tieleman & Hinton 2012) as TensorFlow 1 has it, with which the published A2C results were made.

    ``p -= lr g / sqrt(v + eps)``, where ``v`` is the decayed mean of squares and starts at 1: early steps are small,
    and ``eps`` stands inside the root. ``squares`` is v of all parameters in one row, since on a CPU torch takes the
    tensors of a list one by one, which was a tenth of a small update.
    """

    kept = ("lr", "squares")

    def __init__(self, parameters: Iterable[Tensor], lr: float, decay: float = 0.99, eps: float = 1e-5) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.decay, self.eps = decay, eps
        self.lr = torch.tensor(lr, device=self.parameters[0].device)
        self.squares = torch.ones(sum(p.numel() for p in self.parameters), device=self.parameters[0].device)

    def step(self, gradients: list[Tensor], divisor: Tensor) -> None:
        """Step along the gradients divided by ``divisor`` ()."""
        gradient = torch.cat([g.reshape(-1) for g in gradients]).div_(divisor)
        self.squares.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        change = gradient.div_((self.squares + self.eps).sqrt_()).mul_(-self.lr)
        parts = change.split([p.numel() for p in self.parameters])
        torch._foreach_add_(self.parameters, [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)])


class RAdam(Saved):
    """Adam with a rectified step size (Liu et al. 2020): no need to warm up.

    As long as too few squares were seen for their mean to be trusted, the first five steps with these betas, it steps
    along the mean gradient alone.
    """

    kept = ("lr", "count", "first", "second")

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.betas, self.eps = betas, eps
        device = self.parameters[0].device
        self.lr = torch.tensor(lr, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))

    def step(self, gradients: list[Tensor], divisor: Tensor) -> None:
        """Step along the gradients divided by ``divisor`` ()."""
        beta1, beta2 = self.betas
        count = self.count.add_(1)
        power, longest = beta2**count, 2 / (1 - beta2) - 1
        length = longest - 2 * count * power / (1 - power)
        gain = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        trusted = (length > 5).float()
        # beside it stands either root + eps or 1
        rate = self.lr * torch.where(length > 5, (gain.clamp_min(0) * (1 - power)).sqrt(), 1.0) / (1 - beta1**count)
        torch._foreach_div_(gradients, divisor)
        torch._foreach_lerp_(self.first, gradients, 1 - beta1)
        torch._foreach_mul_(self.second, beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - beta2)
        root = torch._foreach_sqrt(self.second)
        torch._foreach_mul_(root, trusted)
        # as a list, since adding one tensor to all reads it back to Python
        torch._foreach_add_(root, [trusted * self.eps + (1 - trusted)] * len(root))
        change = torch._foreach_div(self.first, root)
        torch._foreach_mul_(change, -rate.float())
        torch._foreach_add_(self.parameters, change)


def optimise(optimiser: Adam | RMSProp | RAdam, loss: Tensor, max_norm: float) -> Tensor:
    """Backward, clip the global norm, step. Returns the norm before clipping, ()."""
    gradients = list(torch.autograd.grad(loss, optimiser.parameters))
    with torch.no_grad():
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        optimiser.step(gradients, (norm / max_norm).clamp_min(1.0))
    return norm


def descend(optimiser: Adam | RMSProp | RAdam, loss: Tensor) -> None:
    """Backward and step, where gradients need no clip; their norm is 2% of a small image network's update."""
    gradients = list(torch.autograd.grad(loss, optimiser.parameters))
    with torch.no_grad():
        optimiser.step(gradients, torch.ones((), device=loss.device))


@torch.no_grad()
def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the target's parameters towards the online ones by tau; 1 copies them."""
    if tau == 1.0:
        torch._foreach_copy_(list(target.parameters()), list(online.parameters()))
    else:
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)

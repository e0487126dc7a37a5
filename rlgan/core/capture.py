"""Capture of whole functions: eager, compiled, or as CUDA graphs. The only file that names CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from rlgan.core.protocols import Batch, mapped
from rlgan.errors import UsageError

Captured = Literal["eager", "compile", "graph", "compile-graph"]
"""``compile-graph`` replays what the compiler made as a CUDA graph."""
WARM_UP = 3


def capture(fn: Callable[..., Any], mode: Captured) -> Callable[..., Any]:
    """Wrap a whole function of one batch. Random numbers are the same in every mode."""
    if mode in ("compile", "compile-graph"):
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor

        inductor.fallback_random = True
        inductor.size_asserts = False  # of every tensor in every call: 629 to 590 us for an iteration of A2C
        if hasattr(dynamo, "trace_autograd_ops"):
            # one graph from the loss to the step instead of a break at every gradient: 745 to 570 us for a small DQN
            dynamo.trace_autograd_ops = True
        shared = mode == "compile-graph" and torch.__version__ >= "2.11"  # launches, of kernels that could run at once
        fn = torch.compile(fn, dynamic=False, options={"combo_kernels": shared})
    return Graphed(fn) if mode in ("graph", "compile-graph") else fn


def uncompiled(mode: Captured) -> Captured:
    """The mode without its compiler."""
    return {"compile": "eager", "compile-graph": "graph"}.get(mode, mode)  # type: ignore[return-value]


def reading_is_free(device: torch.device) -> bool:
    """Whether code may read a tensor back for speed: on a CPU, where nothing waits, and not while it is compiled."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


class Graphed:
    """A function of one batch that is replayed as a CUDA graph.

    The first calls run eagerly on a side stream and count: they are the warm-up that capture asks for. Outputs live in
    the graph's memory and are overwritten by the next call.
    """

    def __init__(self, fn: Callable[[Batch], dict[str, Tensor] | None]) -> None:
        self.fn = fn
        self.calls = 0
        self.side = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: Batch = {}
        self.outputs: dict[str, Tensor] | None = None

    def __call__(self, batch: Batch) -> dict[str, Tensor] | None:
        """Run, record or replay."""
        self.calls += 1
        if self.calls <= WARM_UP:
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                out = self.fn(batch)
            torch.cuda.current_stream().wait_stream(self.side)
            return out
        if self.graph is None:
            self.inputs = mapped(torch.clone, batch)
            self.graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(self.graph):
                    self.outputs = self.fn(self.inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                # the end of the capture complains too, and what went wrong in it stands behind
                first = str(error.__context__ or error).splitlines()[0]
                raise UsageError(
                    f"an update cannot be captured as a CUDA graph: {first}; write capture=eager"
                ) from error
        mapped(Tensor.copy_, self.inputs, batch)
        self.graph.replay()
        return self.outputs

"""What torch can be made to tell about a call: reads back to Python, draws of random numbers, and from where."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rlgan.core import capture

READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__"}
"""Methods of a tensor that wait for the device and hand its numbers to Python."""
VARYING = {"poisson", "binomial", "_standard_gamma", "_sample_dirichlet", "multinomial"}
"""Random functions that draw more or fewer numbers depending on their arguments."""
_SILENT = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


@contextmanager
def host_reads() -> Iterator[list[str]]:
    """Note the first read back to Python, with its file and line, in the list that is given.

    ``if tensor``, ``.item()`` and results whose shape depends on values (``nonzero``, ``x[mask]``) all wait for the
    device and cannot be captured. Code that reads only where `rlgan.core.capture.reading_is_free` takes the way here
    that it takes when it is captured.
    """
    reads: list[str] = []
    with patch.object(capture, "reading_is_free", lambda device: False), _Methods(reads), _Shapes(reads):
        yield reads


def _note(reads: list[str], what: str) -> None:
    if not reads:
        reads.append(f"{what} at {_place()}")


class _Methods(TorchFunctionMode):
    def __init__(self, reads: list[str]) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in READS:
            _note(self.reads, "`if tensor`" if name == "__bool__" else f"{name.strip('_')}()")
        return func(*args, **(kwargs or {}))


class _Shapes(TorchDispatchMode):
    def __init__(self, reads: list[str]) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("index", "index_put", "index_put_"):
            masked = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
            # one number under a mask is filled in without looking; anything else needs the places
            if masked and (name == "index" or args[2].numel() > 1):
                _note(self.reads, "indexing with a mask")
        elif torch.Tag.dynamic_output_shape in func.tags:
            _note(self.reads, f"{name}(), whose shape depends on values,")
        return func(*args, **(kwargs or {}))


class SeparateDraws(TorchDispatchMode):
    """Seeds the generator anew before each random function, so that what one of them uses up never shifts the next.

    So two calls whose copies differ in the last one alone draw the same numbers for all others, even for a Poisson
    variable, which uses up more numbers the larger it is.
    """

    def __init__(self, rng: Generator) -> None:
        super().__init__()
        self.rng, self.calls, self.varying = rng, 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.calls += 1
            self.rng.manual_seed(self.calls)
            self.varying |= func.overloadpacket.__name__ in VARYING
        return func(*args, **(kwargs or {}))


@contextmanager
def global_draws(*, torch_too: bool) -> Iterator[list[str]]:
    """Name the global sources of random numbers that are drawn from in the list that is given, when it ends."""

    def states() -> dict[str, Any]:
        numpy = np.random.get_state(legacy=False)["state"]
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "NumPy's global generator": (numpy["key"].tobytes(), numpy["pos"]),
            "Python's random module": random.getstate(),
            "torch's default generator": torch_too and tuple(bytes(s.tolist()) for s in (torch.get_rng_state(), *cuda)),
        }

    before, used = states(), list[str]()
    yield used
    used += [name for name, state in states().items() if state != before[name]]


def _place() -> str:
    """The innermost line of the stack that belongs neither to torch nor to this kit."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*_SILENT, "<")):
            return f"{Path(frame.filename).name}:{frame.lineno} ({frame.line})"
    return "an unknown place"

"""What torch can be made to tell about a call: reads back to Python, draws of random numbers, and from where."""

from __future__ import annotations

import random
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__"}
"""Methods of a tensor that wait for the device and hand its numbers to Python."""
VARYING = {"poisson", "binomial", "_standard_gamma", "_sample_dirichlet", "multinomial"}
"""Random functions that draw more or fewer numbers depending on their arguments."""
_SILENT = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class HostReads:
    """A context in which reads back to Python are noted: ``first`` is the first one with its file and line, or None.

    ``if tensor``, ``.item()`` and results whose shape depends on values (``nonzero``, ``x[mask]``) all wait for the
    device and cannot be captured.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self._modes: tuple[Any, ...] = (_Methods(self), _Shapes(self))

    def __enter__(self) -> HostReads:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def note(self, what: str) -> None:
        """Remember a read, if it is the first."""
        self.first = self.first or f"{what} at {_place()}"


class _Methods(TorchFunctionMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS:
            shown = {"__bool__": "`if tensor`"}.get(name, f"{name.strip('_')}()")
            self.reads.note(shown)
        return func(*args, **(kwargs or {}))


class _Shapes(TorchDispatchMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("index", "index_put", "index_put_"):
            masked = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
            # one number under a mask is filled in without looking; anything else needs the places
            if masked and (name == "index" or args[2].numel() > 1):
                self.reads.note("indexing with a mask")
        elif torch.Tag.dynamic_output_shape in func.tags:
            self.reads.note(f"{name}(), whose shape depends on values,")
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


class GlobalDraws:
    """A context after which ``used`` names the first global source of random numbers that was drawn from, or None."""

    def __init__(self, *, torch_too: bool) -> None:
        self.torch_too = torch_too
        self.used: str | None = None

    def __enter__(self) -> GlobalDraws:
        self._before = self._states()
        return self

    def __exit__(self, *error: Any) -> None:
        after = self._states()
        self.used = next((name for name, state in self._before.items() if state != after[name]), None)

    def _states(self) -> dict[str, Any]:
        numpy = np.random.get_state(legacy=False)["state"]
        states = {
            "NumPy's global generator": (numpy["key"].tobytes(), numpy["pos"]),
            "Python's random module": random.getstate(),
        }
        if self.torch_too:
            cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
            states["torch's default generator"] = tuple(bytes(s.tolist()) for s in (torch.get_rng_state(), *cuda))
        return states


def _place() -> str:
    """The innermost line of the stack that belongs neither to torch nor to this kit."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*_SILENT, "<")):
            return f"{Path(frame.filename).name}:{frame.lineno} ({frame.line})"
    return "an unknown place"

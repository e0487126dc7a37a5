"""One host simulator as rows of NumPy arrays: its autoreset mode, its seeded resets, and the actions since the last."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from rlgan.errors import EnvError
from rlgan.watchdog import Watchdog

FLAGS = ("terminated", "truncated", "valid", "first", "over")
Array = np.ndarray[Any, np.dtype[Any]]


class Simulator:
    """A group of n copies. Row R is a barrier where R > 0 and R % barrier == 0: its step is the seeded reset."""

    def __init__(
        self, sim: VectorEnv, name: str, group: int, seed: int, barrier: int, device: torch.device, watchdog: Watchdog
    ) -> None:
        self.sim, self.name, self._watchdog, self.n = sim, name, watchdog, (n := sim.num_envs)
        self._group, self._seed, self._every, self._device = group, seed, barrier, device
        mode = sim.metadata.get("autoreset_mode")
        if mode is None:
            raise EnvError(
                f"Env {name} does not say how it resets: set metadata['autoreset_mode'] to a gymnasium AutoresetMode."
            )
        self._mode = AutoresetMode(mode)
        self.same_step = self._mode != AutoresetMode.NEXT_STEP
        self._copies = not getattr(sim, "fresh_arrays", False)
        self._split = hasattr(sim, "send") and hasattr(sim, "recv")
        self._raw = sim.single_observation_space
        self.space = _narrow(self._raw, name)
        self._shape = (n, *(self.space.shape or ()))
        actions = sim.single_action_space
        self._action: Array = np.zeros((n, *(actions.shape or ())), actions.dtype)
        self._sent: list[Array] = []
        self._sent_dtype = _smallest(actions)
        self._last: Array = np.zeros(self._shape, self.space.dtype)
        self._staging: Tensor | None = None
        if self._device.type == "cuda":
            self._staging = torch.from_numpy(self._last).pin_memory()
        self._copied: torch.cuda.Event | None = None
        self._ended = np.zeros(n, bool)
        self._row, self._barrier, self._started, self._flying = 0, 0, False, False

    def restart(self, row: int) -> None:
        """The seeded reset at barrier ``row``; 0 is the start of the run."""
        self._land()
        # 30 bits leave room for simulators that count up from the seed, one per copy, in 32 signed bits.
        seed = int(np.random.SeedSequence(self._seed, spawn_key=(row, self._group)).generate_state(1)[0]) >> 2
        self._keep(self._call(lambda: self.sim.reset(seed=seed))[0])
        self._ended = np.zeros(self.n, bool)
        self._sent.clear()
        self._started, self._barrier = True, row
        self._row = row + 1 if row else 0

    def send(self, action: Array) -> None:
        """Begin a step."""
        if not self._started or self._flying:
            raise RuntimeError("send comes after start, and once for each receive")
        if action.shape != self._action.shape:
            raise EnvError(f"Env {self.name} takes actions of shape {self._action.shape}, not {action.shape}.")
        if not self._at_barrier():
            self._action = action.astype(self._action.dtype)
            if self._every > 0:
                self._sent.append(action.astype(self._sent_dtype))
            if self._split:
                self._call(lambda: self.sim.send(self._action))  # type: ignore[attr-defined]
        self._flying = True

    def receive(self) -> tuple[Array, Array, Array | None]:
        """Finish it: reward (n,) float32, flags (5, n) in the order of FLAGS, and the final observations or None."""
        if not self._flying:
            raise RuntimeError("receive comes after send")
        self._flying = False
        flags = np.zeros((len(FLAGS), self.n), bool)
        terminated, truncated, valid, first, over = flags
        if self._at_barrier():
            self.restart(self._row)
            first[:] = True
            return np.zeros(self.n, np.float32), flags, self._last.copy() if self.same_step else None
        obs, reward, ends, limits, info = self._step()
        self._row += 1
        valid[:] = ~self._ended
        terminated[:] = ends & valid
        truncated[:] = limits & valid
        over[:] = (info["over"] & valid) if "over" in info else (terminated | truncated)
        final = None
        if self.same_step:
            obs, final = self._resolve(obs, over, info)
            first[:] = over
        else:
            first[:] = self._ended
            self._ended = over.copy()
        self._keep(obs)
        if self._at_barrier():
            truncated |= valid & ~terminated
        return np.where(valid, reward, 0).astype(np.float32), flags, final

    def upload(self) -> Tensor:
        """The last observation on the device."""
        if self._staging is None:
            return torch.from_numpy(self._last)
        obs = self._staging.to(self._device, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()
        return obs

    def state_dict(self) -> dict[str, Any]:
        """What `replay` needs."""
        return {
            "row": self._row,
            "barrier": self._barrier,
            "flying": self._flying,
            "sent": torch.from_numpy(np.array(self._sent, self._sent_dtype).reshape(-1, *self._action.shape)),
            "seen": self._digest(),
        }

    def replay(self, saved: dict[str, Any]) -> None:
        """Come back to a saved row.

        Raises:
            EnvError: When the observations there are not those of the saved row.
        """
        sent = saved["sent"].cpu().numpy()
        self.restart(saved["barrier"])
        landed = saved["row"] - self._row
        for action in sent[:landed]:
            self.send(action)
            self.receive()
        if self._digest() != saved["seen"]:
            raise EnvError(
                f"Env {self.name} did not come back to the saved observations in {landed} replayed rows, so the run "
                "cannot go on exactly: install the versions that its directory lists, or start it anew."
            )
        if saved["flying"]:
            self.send(sent[landed] if landed < len(sent) else self._action)

    def close(self) -> None:
        """Finish what is in flight and close the simulator."""
        self._land()
        with self._watchdog:
            self.sim.close()

    def _at_barrier(self) -> bool:
        return self._every > 0 and self._row > 0 and self._row % self._every == 0

    def _step(self) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        step = self._call(self.sim.recv if self._split else lambda: self.sim.step(self._action))  # type: ignore[attr-defined]
        _, reward, terminated, truncated, info = step
        self._check("the reward", reward, (self.n,))
        over = info.get("over", terminated)
        for what, value in (("terminated", terminated), ("truncated", truncated), ("info['over']", over)):
            self._check(what, value, (self.n,), np.bool_)
        return step

    def _resolve(self, obs: Array, over: Array, info: dict[str, Any]) -> tuple[Array, Array]:
        """Split into the next observation and the true one, where an end and the reset share a step."""
        self._check("the observation", obs, self._shape, self._raw.dtype)
        final = obs.astype(self.space.dtype)
        if not over.any():
            return obs, final
        if self._mode == AutoresetMode.DISABLED:
            fresh = self._call(lambda: self.sim.reset(options={"reset_mask": over.copy()}))[0]
            self._check("the observation", fresh, self._shape, self._raw.dtype)
            # Copies that play on keep theirs, whatever a reset by mask shows for them.
            obs = final.astype(self._raw.dtype)
            obs[over] = fresh[over]
            return obs, final
        if "final_obs" not in info:
            raise EnvError(f"Env {self.name} resets within a step but gives no info['final_obs'].")
        for i in np.flatnonzero(over):
            final[i] = info["final_obs"][i]
        return obs, final

    def _land(self) -> None:
        if self._flying and self._split and not self._at_barrier():
            self._call(self.sim.recv)  # type: ignore[attr-defined]
        self._flying = False

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            with self._watchdog:
                return function()
        except Exception as error:
            copy = getattr(error, "copy_index", None)
            where = "" if copy is None else f" in copy {self._group * self.n + copy}"
            kind = type(error).__name__
            raise EnvError(f"Env {self.name} raised {kind}{where} at row {self._row}: {error}") from error

    def _check(self, what: str, value: Any, shape: tuple[int, ...], dtype: Any = None) -> None:
        if isinstance(value, np.ndarray) and value.shape == shape and (dtype is None or value.dtype == dtype):
            return
        got = f"{value.dtype} of {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        wanted = f"{'numbers' if dtype is None else np.dtype(dtype).name} of {shape}"
        raise EnvError(f"Env {self.name} returned {what} as {got} at row {self._row}; it must be {wanted}.")

    def _keep(self, obs: Any) -> None:
        """Copy it where the simulator may write the next one into the same array."""
        self._check("the observation", obs, self._shape, self._raw.dtype)
        if self._staging is None:
            self._last = obs.astype(self.space.dtype, copy=self._copies)
            return
        if self._copied is not None:
            self._copied.synchronize()
        self._last = self._staging.numpy()
        np.copyto(self._last, obs, casting="same_kind")

    def _digest(self) -> str:
        return hashlib.sha256(self._last.tobytes()).hexdigest()


def _narrow(space: Space[Any], name: str) -> Space[Any]:
    """The space of the tensors: float64 becomes float32, which is what networks take."""
    if not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
        raise EnvError(f"Env {name} observes {type(space).__name__}; wrap it in gymnasium.wrappers.FlattenObservation.")
    if isinstance(space, Box) and space.dtype == np.float64:
        return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    return space


def _smallest(space: Space[Any]) -> Any:
    small = isinstance(space, Discrete) and space.start >= 0 and space.start + space.n <= 256
    return np.uint8 if small else space.dtype

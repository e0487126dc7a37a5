"""Checks of rows: any vector env, of tensors or NumPy arrays, keeps the layout of Gymnasium's NEXT_STEP."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rlgan.contract import outside, sample
from rlgan.core import seeding
from rlgan.errors import ConformanceError
from rlgan.testing.kit import Check, Subject, about, bind, leaves, run_all, tensor_of
from rlgan.testing.live import first_difference, snapshot

ROWS = 100
FLAGS = ("terminated", "truncated", "valid", "first", "over")


def check_vec_env(make: Callable[[], Any], name: str = "", device: str = "cpu") -> None:
    """Check what ``make()`` gives: a VecEnv, a HostVecEnv, or a ``gymnasium.vector.VectorEnv`` in NEXT_STEP mode.

    Raises:
        ConformanceError: the first fault.
    """
    run_all(vec_checks(make, f"env {name or getattr(make, '__name__', 'under test')}", torch.device(device)))


def vec_checks(make: Callable[[], Any], who: str, device: torch.device) -> list[Check]:
    """The checks of `check_vec_env`, to be run one by one."""
    return bind(CHECKS, Subject(who, make, None, None, device))


def rows(s: Subject) -> None:
    """The order of ends, invalid rows and starts; observations inside their space, all numbers finite."""
    vec = _Rows(s, seed=1)
    try:
        ended = torch.zeros(vec.n, dtype=torch.bool, device=s.device)
        _check_observation(s, vec, vec.obs, "the first row")
        for t in range(ROWS):
            row = vec.step(t)
            _check_types(s, vec, row, t)
            _check_row(s, row, ended, t)
            _check_observation(s, vec, row["obs"], f"row {t}")
            ended = row["over"] if "final_obs" not in row else torch.zeros_like(ended)
    finally:
        vec.close()


def repetition(s: Subject) -> None:
    """Seed and actions decide every row, and a row that was given is not written again."""
    runs = []
    for _ in range(2):
        vec = _Rows(s, seed=1)
        try:
            given = [_named(vec.obs)]
            kept = [snapshot(given[0])]
            for t in range(ROWS):
                given.append(_named(vec.step(t)))
                kept.append(snapshot(given[-1]))
        finally:
            vec.close()
        for t, (row, copied) in enumerate(zip(given, kept, strict=True)):
            if changed := first_difference(copied, row):
                raise ConformanceError(f"{s.who} overwrites {changed} that it returned {t} rows after the start")
        runs.append(kept)
    for t, (row, again) in enumerate(zip(*runs, strict=True)):
        if changed := first_difference(row, again):
            raise ConformanceError(
                f"{s.who} gives another value of {changed} {t} rows after the start for the same seed and actions: "
                "something beside the seed decides"
            )


def resume(s: Subject) -> None:
    """A saved env, loaded into a new one, goes on with the same rows."""
    one, two = _Rows(s, seed=1), None
    try:
        if not hasattr(one.env, "state_dict"):
            return
        # an end in the last row before it is saved asks most of it
        passed, row = 0, {"over": torch.zeros(1)}
        while passed < ROWS // 4 or (passed < ROWS // 2 and not bool(row["over"].any())):
            row = one.step(passed)
            passed += 1
        saved, random = copy.deepcopy(one.env.state_dict()), seeding.state_dict(s.device)
        expected = [snapshot(_named(one.step(t))) for t in range(passed, passed + ROWS // 2)]
        two = _Rows(s, seed=2)
        two.env.load_state_dict(saved)
        seeding.load_state_dict(random, s.device)
        for t, before in enumerate(expected, passed):
            if changed := first_difference(before, _named(two.step(t))):
                raise ConformanceError(
                    f"{s.who} gives another value of {changed} at row {t} after its saved state was loaded into a new "
                    "instance: what decides it is not in the state"
                )
    finally:
        one.close()
        if two is not None:
            two.close()


CHECKS = (rows, repetition, resume)


class _Rows:
    """Steps every kind of vector env: rlgan's own by start, send and receive, Gymnasium's by reset and step."""

    def __init__(self, s: Subject, seed: int) -> None:
        self.env = env = s.factory()
        self.device, self.n = s.device, env.num_envs
        self._own = hasattr(env, "receive")
        seeding.seed_all(seed)
        if self._own:
            self.obs = _joined([env.start(g) for g in range(env.groups)])
            return
        if (mode := env.metadata.get("autoreset_mode")) != AutoresetMode.NEXT_STEP:
            raise ConformanceError(f"{s.who} resets by {mode}; its rows must follow AutoresetMode.NEXT_STEP")
        self.obs = _tensors(env.reset(seed=seed)[0])
        self._ended = torch.zeros(self.n, dtype=torch.bool)

    def step(self, t: int) -> dict[str, Any]:
        """Row t, with actions that depend on t alone."""
        env = self.env
        action = sample(env.single_action_space, self.n, t, self.device)
        if self._own:
            for g in range(env.groups):
                env.send(g, action[env.columns(g)])
            parts = [env.receive(g) for g in range(env.groups)]
            return {name: _joined([part[name] for part in parts]) for name in parts[0]}
        obs, reward, terminated, truncated, _ = env.step(action.numpy())
        row = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
        tensors: dict[str, Any] = {name: _tensors(value) for name, value in row.items()}
        ended, self._ended = self._ended, tensors["terminated"] | tensors["truncated"]
        return {**tensors, "valid": ~ended, "first": ended, "over": self._ended}

    def close(self) -> None:
        """Close the env, which may own threads and processes."""
        self.env.close()


def _joined(groups: list[Any]) -> Any:
    """All copies; of one group its own tensors, so that overwritten ones are seen."""
    if len(groups) == 1:
        return groups[0]
    if isinstance(groups[0], dict):
        return {name: torch.cat([group[name] for group in groups]) for name in groups[0]}
    return torch.cat(groups)


def _tensors(value: Any) -> Any:
    return {k: tensor_of(v) for k, v in value.items()} if isinstance(value, dict) else tensor_of(value)


def _named(row: Any) -> dict[str, Tensor]:
    """The tensors of a row, or of a first observation, by name."""
    if not isinstance(row, dict) or "reward" not in row:
        return leaves(row, "the observation")
    rest = {f"the field {name!r}": value for name, value in row.items() if name != "obs"}
    return {**leaves(row["obs"], "the observation"), **rest}


def _check_types(s: Subject, vec: _Rows, row: dict[str, Any], t: int) -> None:
    for name in ("reward", *FLAGS):
        value = row[name]
        right = isinstance(value, Tensor) and value.shape == (vec.n,)
        if right and (value.is_floating_point() if name == "reward" else value.dtype == torch.bool):
            continue
        wanted = f"{'floats' if name == 'reward' else 'bool'} of ({vec.n},)"
        raise ConformanceError(f"{s.who} returned {name} as {about(value)} at row {t}; it must be {wanted}")


def _check_row(s: Subject, row: dict[str, Any], ended: Tensor, t: int) -> None:
    reward, terminated, truncated, valid, first, over = (row[name] for name in ("reward", *FLAGS))
    same_step = "final_obs" in row
    faults = {
        "gives a reward that is not finite": ~reward.isfinite(),
        "marks a row as valid that follows an end, or the other way round": valid != ~ended,
        "gives a reward on an invalid row, where it must be 0": ~valid & (reward != 0),
        "ends an episode on an invalid row": ~valid & (terminated | truncated | over),
        "gives both terminated and truncated": terminated & truncated,
        "says over where neither terminated nor truncated is": over & ~(terminated | truncated),
        "gives first somewhere else than after an end": first != (over if same_step else ended),
    }
    for fault, where in faults.items():
        if bool(where.any()):
            copy = int(where.nonzero()[0])
            raise ConformanceError(f"{s.who} {fault} (copy {copy}, row {t}, reward {float(reward[copy]):g})")


def _check_observation(s: Subject, vec: _Rows, obs: Any, where: str) -> None:
    if fault := outside(vec.env.single_observation_space, obs):
        raise ConformanceError(f"{s.who} gives an observation at {where} that {fault}")

"""Checks of an env: pure, batched, random by its generator alone, and without the work of VecEnv."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Space
from torch import Generator, Tensor

from rlgan.contract import check_rows, outside, sample
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan.errors import ConformanceError
from rlgan.registry import Registry
from rlgan.simulators.host import HostVecEnv
from rlgan.testing.detect import SeparateDraws
from rlgan.testing.kit import (
    Call,
    Check,
    Subject,
    about,
    bind,
    check_draws,
    check_reads,
    check_untouched,
    leaves,
    run_all,
    subject,
)
from rlgan.testing.live import first_difference, snapshot
from rlgan.testing.vec import vec_checks

N = 16
"""Copies."""
LIMIT = 20
"""Rows after which the VecEnv of the checks truncates, so that many episodes end."""
HOST_COPIES, HOST_BARRIER, HOST_TIMEOUT = 2, 10_000, 60.0


class EnvSubject(Subject):
    """A device env under test."""

    def make(self, **changes: Any) -> Any:
        """A new env, with some settings replaced."""
        return self.factory(dataclasses.replace(self.config, **changes), self.device, torch.float32)


def check_env(what: Any, config: Any = None, device: str = "cpu") -> None:
    """Check an env: a name (``shop``, ``gym:CartPole-v1``), an EnvSpec, or ``factory(config, device, dtype)``.

    Without ``config`` the defaults of its settings are taken.

    Raises:
        ConformanceError: the first fault.
    """
    run_all(env_checks(what, config, device))


def env_checks(what: Any, config: Any = None, device: str = "cpu", registry: Registry | None = None) -> list[Check]:
    """The checks of `check_env`, to be run one by one."""
    spec, argument = (registry or Registry()).get_named("envs", what) if isinstance(what, str) else (what, "")
    found = subject("envs", spec, config, device)
    s = EnvSubject(**{**vars(found), "who": f"env {what}" if isinstance(what, str) else found.who})
    if s.spec and s.spec.host:
        return vec_checks(partial(_host, s, argument), s.who, s.device)
    return bind(CHECKS, s) + vec_checks(partial(_vec, s), s.who, s.device)


def _host(s: EnvSubject, argument: str) -> HostVecEnv:
    def make(n: int) -> Any:
        return s.factory(s.config, argument, n, False)

    name = s.who.removeprefix("env ")
    return HostVecEnv(make, HOST_COPIES, s.device, seed=0, barrier=HOST_BARRIER, timeout=HOST_TIMEOUT, name=name)


def _vec(s: EnvSubject) -> VecEnv:
    vec = VecEnv(s.make(), N, s.device)
    vec.max_steps = min(vec.max_steps, LIMIT)
    return vec


def shapes(s: EnvSubject) -> None:
    """Shapes, dtypes and devices are those that the env declares."""
    env = s.make()
    check_rows(env, N, s.device, s.who.removeprefix("env "))


def in_place(s: EnvSubject) -> None:
    """What is given is left as it is, and what was returned is never overwritten."""
    env = s.make()
    reset, _, step = calls = _calls(s, env)
    check_untouched(s.who, env, calls)
    earlier = {"reset": leaves(reset.run(env), "the state"), "step": _named(env, step.run(env))}
    kept = {what: snapshot(tensors) for what, tensors in earlier.items()}
    _named(env, env.step(env.reset(N, _rng(s, 3)), sample(env.action_space, N, 6, s.device), _rng(s, 4)))
    for what, tensors in earlier.items():
        if changed := first_difference(kept[what], tensors):
            raise ConformanceError(
                f"{s.who} overwrites {changed} that an earlier {what} returned: make new tensors in each call"
            )


def randomness(s: EnvSubject) -> None:
    """Random numbers come from ``rng`` alone; the same generator gives the same start."""
    env = s.make()
    instead = "pass generator=rng to every random function of torch and use no other"
    check_draws(s.who, env, _calls(s, env), instead, torch_too=True)
    check_draws(s.who, env, _calls(s, env, with_rng=False), instead)
    for given in ("the same seed in rng", "rng=None and the same default generator"):
        starts = []
        for _ in range(2):
            seeding.seed_all(3)
            rng = _rng(s, 3) if given.startswith("the same seed") else None
            starts.append(leaves(env.reset(N, rng), "the state"))
        if changed := first_difference(*starts):
            raise ConformanceError(
                f"{s.who} starts with another value of {changed} in two resets with {given}: "
                "something beside rng decides, such as a generator or a counter of its own"
            )


def purity(s: EnvSubject) -> None:
    """A step and an observation follow from the state, the action and rng alone: nothing is kept on self."""
    env = s.make()
    state = _walk(env, s, seed=1)
    action = sample(env.action_space, N, 5, s.device)

    def outcome(env: Any) -> dict[str, Tensor]:
        copied = {name: value.clone() for name, value in state.items()}
        seen = snapshot(leaves(env.observe(copied), "the observation before the step"))
        return seen | snapshot(_named(env, env.step(copied, action, _rng(s, 2))))

    first = outcome(env)
    others = {"a second time": env, "after another reset and other steps": env, "in a new instance": s.make()}
    for when, other in others.items():
        if when != "a second time":
            _walk(other, s, seed=7)
        if changed := first_difference(first, outcome(other)):
            raise ConformanceError(
                f"{s.who} gives another value of {changed} for the same state, action and random numbers, {when}: "
                "put what step depends on into the state"
            )


def independence(s: EnvSubject) -> None:
    """Copy i does not depend on copy j."""
    env = s.make()
    state, other = _walk(env, s, seed=1), _walk(env, s, seed=7, steps=1)
    action, other_action = (sample(env.action_space, N, seed, s.device) for seed in (5, 6))
    for changed, rest in ((N - 1, slice(0, N - 1)), (0, slice(1, N))):
        results = []
        for foreign in (False, True):
            mixed, acts = {k: v.clone() for k, v in state.items()}, action.clone()
            if foreign:
                acts[changed] = other_action[changed]
                for name, value in mixed.items():
                    value[changed] = other[name][changed]
            rng = _rng(s, 2)
            with SeparateDraws(rng) as draws:
                results.append(_named(env, env.step(mixed, acts, rng)))
        # what such a function draws for the first copy shifts what it draws for the others
        if changed == 0 and draws.varying:
            return
        if found := first_difference(*({name: value[rest] for name, value in each.items()} for each in results)):
            raise ConformanceError(
                f"{s.who} mixes copies: {found} of other copies changes with the state and action of copy {changed}; "
                "reduce over the trailing dimensions alone"
            )


def host_reads(s: EnvSubject) -> None:
    """No number is read back to Python, so that whole steps can be captured."""
    env = s.make()
    check_reads(s.who, env, _calls(s, env))


def time_limit(s: EnvSubject) -> None:
    """A time limit is a truncation, which VecEnv gives: an env does not terminate at its own ``max_steps``."""
    limited = any(field.name == "max_steps" for field in dataclasses.fields(s.config))
    envs = [s.make(max_steps=steps) for steps in (11, 15)] if limited else [s.make()]
    if any(env.max_steps > 1_000 for env in envs) or not all(_ends_at_limit(env, s) for env in envs):
        return
    raise ConformanceError(
        f"{s.who} terminates every episode that gets to its max_steps={envs[-1].max_steps}: the time limit belongs to "
        "VecEnv, which truncates there; leave it out of step (or raise max_steps if the episode truly ends there)"
    )


def extras(s: EnvSubject) -> None:
    """Metrics, references, pictures and the env of evaluations, where there are any, have the right shapes."""
    env = s.make()
    state = _walk(env, s, seed=1)
    for name, value in (env.metrics(state) if hasattr(env, "metrics") else {}).items():
        if not isinstance(value, Tensor) or value.shape != (N,):
            raise ConformanceError(f"{s.who} returned the metric {name!r} as {about(value)}; it must be ({N},)")
    spaces = env.action_space, getattr(env, "reference_space", env.action_space)
    for name, policy in (env.references() if hasattr(env, "references") else {}).items():
        if callable(policy) and not re.fullmatch(r"[\w.+-]+", name):
            mend = "write hyphens, as in linear-feedback, so that agent=reference:NAME can name it"
            raise ConformanceError(f"{s.who} has the reference {name!r}: {mend}")
        if callable(policy) and (fault := _outside_all(spaces, policy(state, _rng(s, 2)))):
            raise ConformanceError(f"{s.who} has the reference {name!r}, whose action {fault}")
    if hasattr(env, "render"):
        picture = env.render(state, N - 1)
        right = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)
        if not right:
            raise ConformanceError(f"{s.who} renders {type(picture).__name__}; it must be a uint8 array (H, W, 3)")
    if hasattr(env, "evaluated"):
        other = env.evaluated()
        if (other.observation_space, other.action_space) != (env.observation_space, env.action_space):
            raise ConformanceError(
                f"{s.who} has other spaces in evaluated(): agents play both, so they must be the same"
            )


def _outside_all(spaces: Sequence[Space], value: Any) -> str | None:
    """What keeps values out of the last of several spaces, if they lie in none."""
    faults = [outside(space, value) for space in spaces]
    return faults[-1] if all(faults) else None


CHECKS = (shapes, in_place, randomness, purity, independence, host_reads, time_limit, extras)


def _rng(s: EnvSubject, seed: int) -> Generator:
    return Generator(s.device).manual_seed(seed)


def _walk(env: Any, s: EnvSubject, seed: int, steps: int = 3) -> dict[str, Tensor]:
    """Some steps from a start, with random actions."""
    rng = _rng(s, seed)
    state = env.reset(N, rng)
    for k in range(steps):
        state = env.step(state, sample(env.action_space, N, 100 * seed + k, s.device), rng)[0]
    return state


def _calls(s: EnvSubject, env: Any, *, with_rng: bool = True) -> tuple[Call, Call, Call]:
    """The three functions of an env, on a state some steps from a start."""
    state, action = _walk(env, s, seed=1), sample(env.action_space, N, 5, s.device)
    given = {**leaves(state, "the state"), "the action": action}

    def rng() -> Generator | None:
        return _rng(s, 2) if with_rng else None

    return (
        Call("reset", lambda env: env.reset(N, rng())),
        Call("observe", lambda env: env.observe(state), given),
        Call("step", lambda env: env.step(state, action, rng()), given),
    )


def _named(env: Any, stepped: tuple[dict[str, Tensor], Tensor, Tensor]) -> dict[str, Tensor]:
    """All that a step gives, by name."""
    following, reward, terminated = stepped
    rest = {"the reward": reward, "terminated": terminated}
    return {**leaves(following, "the state"), **rest, **leaves(env.observe(following), "the observation")}


def _ends_at_limit(env: Any, s: EnvSubject) -> bool:
    """Whether several copies get to ``max_steps`` with random actions, and all of them terminate right there."""
    copies, rng = 4 * N, _rng(s, 1)
    state = env.reset(copies, rng)
    alive = torch.ones(copies, dtype=torch.bool, device=s.device)
    for k in range(env.max_steps - 1):
        state, _, terminated = env.step(state, sample(env.action_space, copies, k, s.device), rng)
        alive &= ~terminated
    terminated = env.step(state, sample(env.action_space, copies, env.max_steps, s.device), rng)[2]
    return int(alive.sum()) >= 4 and bool(terminated[alive].all())

"""Checks of an agent: it acts inside the action space, learns, and is saved whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Tensor

from rlgan.core import seeding
from rlgan.core.protocols import Batch, Phase, Spaces
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import ConformanceError
from rlgan.registry import Registry
from rlgan.specs import AgentSpec
from rlgan.store import tree
from rlgan.testing import live
from rlgan.testing.detect import GlobalDraws, HostReads
from rlgan.testing.kit import Check, about, bind, config_for, first_difference, leaves, run_all, snapshot
from rlgan.testing.probe import Probe
from rlgan.testing.spaces import draw, outside

N = 8
"""Copies."""
ACTORS = 256
"""Copies where shares of random actions are counted."""
UPDATES = 2
ROWS = 500_000
"""Rows within which a phase must give its first batches."""
STEPS = 100_000
"""Length of the run that the agent is told of."""
SAMPLES_IN_EVALUATION = "samples-in-evaluation"
"""The tag of an agent whose evaluation draws its actions on purpose."""
VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
PAIRS: tuple[tuple[Space, Space], ...] = (
    (VECTOR, Discrete(3)),
    (VECTOR, Box(-2.0, 2.0, (2,), np.float32)),
    (Discrete(6), Discrete(3)),
    (VECTOR, Discrete(3, start=2)),
    (VECTOR, MultiDiscrete([2, 3])),
    (Box(0, 255, (4, 84, 84), np.uint8), Discrete(3)),
)
"""Observations and actions that agents are tried with."""


@dataclass(frozen=True)
class AgentSubject:
    """An agent under test."""

    who: str
    factory: Callable[..., Any]
    config: Any
    device: torch.device
    pairs: tuple[tuple[Space, Space], ...]
    """The spaces that it does not refuse; the first ones are those in which it learns."""
    samples: bool
    """Whether its evaluation draws actions on purpose."""

    def make(self, pair: int = 0) -> Any:
        """A new agent; its random initial values differ from those of the one before."""
        env = self.env(pair)
        return self.factory(Spaces(*self.pairs[pair], STEPS, env.stack), self.config, self.device)

    def env(self, pair: int = 0) -> Probe:
        """Where it acts."""
        return Probe(*self.pairs[pair], self.device)


def check_agent(what: Any, config: Any = None, device: str = "cpu") -> None:
    """Check an agent: a name (``dqn``), an AgentSpec, or ``factory(spaces, config, device)``.

    It is tried in small random envs with the spaces that its spec does not refuse; a bare factory with vectors and
    three actions. Without ``config`` the defaults of its settings are taken.

    Raises:
        ConformanceError: the first fault.
    """
    run_all(agent_checks(what, config, device))


def agent_checks(what: Any, config: Any = None, device: str = "cpu", registry: Registry | None = None) -> list[Check]:
    """The checks of `check_agent`, to be run one by one."""
    if isinstance(what, str):
        what = cast(AgentSpec, (registry or Registry()).get("agents", what))
    if isinstance(what, AgentSpec):
        pairs = tuple(pair for pair in PAIRS if what.refuses(*pair) is None)
        name, factory, samples = what.name, what.factory, SAMPLES_IN_EVALUATION in what.tags
    else:
        name, factory, samples = getattr(what, "__name__", type(what).__name__), what, False
        pairs = PAIRS[:1]
    settings = config_for(what, config)
    return bind(CHECKS, AgentSubject(f"agent {name}", factory, settings, torch.device(device), pairs, samples))


def actions(s: AgentSubject) -> None:
    """``act`` gives actions of the action space for each pair of spaces that is not refused."""
    if not s.pairs:
        tried = "; ".join(f"{observation} with {action}" for observation, action in PAIRS)
        raise ConformanceError(f"{s.who} refuses all spaces that it is tried with: {tried}")
    for pair, (observation, action) in enumerate(s.pairs):
        agent = s.make(pair)
        obs = draw(observation, N, None, s.device)
        for explore in (True, False):
            out, carry = _act(s, agent, obs, explore)
            if not isinstance(out, dict) or "action" not in out:
                raise ConformanceError(f"{s.who} returned {about(out)} from act; it must be a dict with 'action'")
            if fault := outside(action, out["action"]):
                raise ConformanceError(f"{s.who} with explore={explore} gives an action that {fault}")
            for name, value in {**leaves(out, "act's output"), **leaves(carry, "the carry")}.items():
                if not isinstance(value, Tensor) or value.shape[:1] != (N,):
                    raise ConformanceError(f"{s.who} returned {name} as {about(value)}; it must be ({N}, ...)")


def in_place(s: AgentSubject) -> None:
    """``act`` leaves the observation and the carry as they are."""
    agent = s.make()
    given = {**leaves(_obs(s), "the observation"), **leaves(agent.carry(N), "the carry")}
    before = snapshot(given)
    carry = tuple(value for name, value in given.items() if "carry" in name) or None
    _act(s, agent, given["the observation"], True, carry)
    if changed := first_difference(before, given):
        raise ConformanceError(f"{s.who} changes {changed} in place in act: return new tensors instead")


def randomness(s: AgentSubject) -> None:
    """All random numbers are those of torch's default generator."""
    agent, obs, outs = s.make(), _obs(s, ACTORS), []
    for _ in range(2):
        seeding.seed_all(3)
        with GlobalDraws(torch_too=False) as draws:
            outs.append(leaves(_act(s, agent, obs, True)[0], "act's output"))
        if draws.used:
            raise ConformanceError(f"{s.who} draws from {draws.used} in act: use torch's default generator alone")
    if changed := first_difference(*outs):
        raise ConformanceError(
            f"{s.who} gives another value of {changed} for the same observation and random numbers: it draws from "
            "a generator of its own, or keeps something that belongs into the carry"
        )


def evaluation(s: AgentSubject) -> None:
    """``explore=False`` is greedy, but for a small epsilon."""
    if s.samples:
        return
    agent, obs = s.make(), _obs(s, ACTORS)
    one, two = (_act(s, agent, obs, False)[0]["action"] for _ in range(2))
    differing = float((one != two).float().mean())
    if differing > 0.2:
        raise ConformanceError(
            f"{s.who} ignores explore=False: asked twice, it gives other actions in {differing:.0%} of the copies; "
            f"evaluation is greedy but for a small epsilon (or the spec has the tag {SAMPLES_IN_EVALUATION!r})"
        )


def independence(s: AgentSubject) -> None:
    """The action of one copy does not depend on the observation of another."""
    agent, obs = s.make(), _obs(s)
    changed = obs.clone()
    changed[-1] = _obs(s)[-1]
    outs = []
    for seen in (obs, changed):
        seeding.seed_all(3)
        outs.append(_act(s, agent, seen, False)[0]["action"][:-1])
    if not torch.equal(*outs):
        raise ConformanceError(f"{s.who} mixes copies: an action changes with the observation of another copy")


def host_reads(s: AgentSubject) -> None:
    """No number is read back to Python in ``act`` and ``update``, so that both can be captured."""
    agent, obs = s.make(), _obs(s)
    for explore in (True, False):
        with HostReads() as reads:
            _act(s, agent, obs, explore)
        _raise_read(s, f"act with explore={explore}", reads)
    for phase, batch in _batches(s, agent, 1):
        with HostReads() as reads:
            phase.update(batch)
        _raise_read(s, f"the update of phase {phase.name!r}", reads)


def updates(s: AgentSubject) -> None:
    """An update returns 0-d metrics, changes parameters, and keeps every number finite."""
    agent = s.make()
    for phase, batch in _batches(s, agent, UPDATES):
        where = f"the update of phase {phase.name!r}"
        before = live.copies(_trained(agent))
        metrics = phase.update(batch)
        if not isinstance(metrics, dict):
            raise ConformanceError(f"{s.who} returned {about(metrics)} from {where}; it must be a dict of 0-d tensors")
        for name, value in metrics.items():
            if not isinstance(value, Tensor) or (name != "priority" and value.shape != ()):
                raise ConformanceError(
                    f"{s.who} returned the metric {name!r} as {about(value)}; it must be a 0-d tensor"
                )
            if value.requires_grad:
                raise ConformanceError(f"{s.who} returned the metric {name!r} with its graph: detach it")
        everything = {**{f"metric {name!r}": value for name, value in metrics.items()}, **live.values(agent)}
        for name, number in everything.items():
            if isinstance(number, Tensor) and number.is_floating_point() and not bool(number.isfinite().all()):
                raise ConformanceError(f"{s.who} has a {name} that is not finite after {where}")
        if live.difference(before, _trained(agent)) is None:
            raise ConformanceError(f"{s.who} learns nothing: {where} changes no parameter")


def saving(s: AgentSubject) -> None:
    """A fresh agent that loads the saved state is the same in all tensors, acts alike, and learns on alike."""
    agent = s.make()
    learnt = []
    for phase, batch in _batches(s, agent, UPDATES):
        phase.update(batch)
        learnt.append((phase.name, batch))
        if len(learnt) == 1:
            for _, call in phase.periodic:
                call()
    fresh = s.make()
    tensors: dict[str, Tensor] = {}
    try:
        saved = tree.encode(agent.state_dict(), tensors)
    except TypeError as error:
        raise ConformanceError(f"{s.who} has a state_dict that cannot be saved: {error}") from error
    before = live.values(fresh)
    fresh.load_state_dict(tree.decode(saved, snapshot(tensors)))
    after = live.values(fresh)
    for path, value in before.items():
        if isinstance(value, torch.nn.Parameter) and after.get(path) is not value:
            raise ConformanceError(
                f"{s.who} replaces {path} in load_state_dict: copy into the live tensor, which the optimiser holds"
            )
    forgotten = live.difference(live.values(agent), after)
    if forgotten:
        raise ConformanceError(
            f"{s.who} forgets {forgotten} in state_dict or load_state_dict: after {len(learnt)} updates it is not the "
            "same in a fresh agent that loaded the saved state"
        )
    obs = _obs(s)
    outs = []
    for each in (agent, fresh):
        seeding.seed_all(3)
        out = leaves(_act(s, each, obs, True)[0], "act's output")
        phases = {phase.name: phase for phase in each.phases()}
        for name, batch in learnt:
            out |= {f"the metric {k!r}": v for k, v in phases[name].update(dict(batch)).items()}
        outs.append(snapshot(out))
    changed = first_difference(*outs) or live.difference(live.values(agent), live.values(fresh))
    if changed:
        raise ConformanceError(
            f"{s.who} goes on differently after its saved state was loaded into a fresh agent: {changed} is not the "
            "same, so what decides it is not in state_dict"
        )


CHECKS = (actions, in_place, randomness, evaluation, independence, host_reads, updates, saving)


def _obs(s: AgentSubject, n: int = N) -> Tensor:
    return draw(s.pairs[0][0], n, None, s.device)


def _act(s: AgentSubject, agent: Any, obs: Tensor, explore: bool, carry: Any = None) -> tuple[Batch, Any]:
    step = torch.zeros((), dtype=torch.int64, device=s.device)
    with torch.no_grad():
        return agent.act(obs, agent.carry(len(obs)) if carry is None else carry, step, explore)


def _raise_read(s: AgentSubject, what: str, reads: HostReads) -> None:
    if reads.first:
        raise ConformanceError(
            f"{s.who} reads tensors back in {what}, which waits for the device and cannot be captured: {reads.first}"
        )


def _batches(s: AgentSubject, agent: Any, count: int) -> Iterator[tuple[Phase, Batch]]:
    """The first batches of each phase, as the trainer's own sources give them."""
    stream = Stream(VecEnv(s.env(), N, s.device, name="probe"), agent.act, agent.carry)
    stream.begin()
    for phase in agent.phases():
        source, began = make_source(phase, stream), stream.rows
        given = 0
        while given < count:
            if stream.rows - began > ROWS:
                raise ConformanceError(f"{s.who} gets no batch in phase {phase.name!r} within {ROWS:,} rows")
            batch = source.next()
            if batch is not None:
                given += 1
                yield phase, {name: value.clone() for name, value in batch.items()}


def _trained(agent: Any) -> dict[str, Tensor | float]:
    """The parameters that are to be trained, or, where there are none, every tensor of floats."""
    tensors = {path: v for path, v in live.values(agent).items() if isinstance(v, Tensor) and v.is_floating_point()}
    parameters = {path: v for path, v in tensors.items() if isinstance(v, torch.nn.Parameter) and v.requires_grad}
    return cast("dict[str, Tensor | float]", parameters or tensors)

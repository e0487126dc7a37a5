"""Checks of an agent: it acts inside the action space, learns, and is saved whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium.spaces import Discrete, Space
from torch import Tensor

from rlgan.contract import outside
from rlgan.core import seeding
from rlgan.core.protocols import Batch, Spaces
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import ConformanceError
from rlgan.registry import Registry
from rlgan.testing.kit import Call, Check, about, bind, leaves, run_all, subject
from rlgan.testing.learner import SEED, Learner, batches, host_reads, in_place, randomness, saving, updates
from rlgan.testing.probe import PAIRS, STEPS, Probe, draw

N = 8
"""Copies."""
ACTORS = 256
"""Copies where shares of random actions are counted."""
SAMPLES_IN_EVALUATION = "samples-in-evaluation"
"""The tag of an agent whose evaluation draws its actions on purpose."""


@dataclass(frozen=True)
class AgentSubject(Learner):
    """An agent under test."""

    pairs: tuple[tuple[Space, Space], ...]
    """The spaces that it does not refuse; the first ones are those in which it learns."""
    argument: str
    """What follows the colon of its name."""
    keeps = "it draws from a generator of its own, or keeps something that belongs into the carry"

    def make(self, pair: int = 0) -> Any:
        """A new agent; its random initial values differ from those of the one before."""
        env = Probe(*self.pairs[pair], self.device)
        model = env.model if self.spec and self.spec.plans else None
        told = Spaces(*self.pairs[pair], STEPS, env.stack, "probe", model, env.references, self.argument)
        return self.factory(told, self.config, self.device)

    def observed(self, n: int = ACTORS, pair: int = 0) -> Tensor:
        """Random observations (n, ...)."""
        return draw(self.pairs[pair][0], n, None, self.device)

    def uses(self, thing: Any) -> list[Call]:
        """``act``, exploring and not."""
        obs, carry = self.observed(), thing.carry(ACTORS)
        tensors = {**leaves(obs, "the observation"), **leaves(carry, "the carry")}

        def call(explore: bool) -> Call:
            act = lambda agent: _act(self, agent, obs, carry, explore)[0]  # noqa: E731
            return Call(f"act with explore={explore}", act, tensors, "act's output")

        return [call(True), call(False)]

    def updates(self, thing: Any, count: int) -> Iterator[Call]:
        """The first updates of each phase, in a small env of random observations."""
        stream = Stream(
            VecEnv(Probe(*self.pairs[0], self.device), N, self.device, name="probe"), thing.act, thing.carry
        )
        stream.begin()
        return batches(self, thing, stream, count)


def check_agent(what: Any, config: Any = None, device: str = "cpu") -> None:
    """Check an agent: a name (``dqn``, ``reference:random``), an AgentSpec, or ``factory(spaces, config, device)``.

    It is tried in small random envs with the spaces that its spec does not refuse; a bare factory with vectors and
    three actions. Without ``config`` the defaults of its settings are taken.

    Raises:
        ConformanceError: the first fault.
    """
    run_all(agent_checks(what, config, device))


def agent_checks(what: Any, config: Any = None, device: str = "cpu", registry: Registry | None = None) -> list[Check]:
    """The checks of `check_agent`, to be run one by one."""
    spec, argument = (registry or Registry()).get_named("agents", what) if isinstance(what, str) else (what, "")
    found = subject("agents", spec, config, device)
    pairs = PAIRS[:1] if found.spec is None else tuple(p for p in PAIRS if found.spec.refuses(*p) is None)
    if found.spec and found.spec.plans:
        pairs = tuple(pair for pair in pairs if isinstance(pair[0], Discrete))  # those that the probe has a model of
    return bind(CHECKS, AgentSubject(**vars(found), pairs=pairs, argument=argument))


def actions(s: AgentSubject) -> None:
    """``act`` gives actions of the action space for each pair of spaces that is not refused."""
    if not s.pairs:
        tried = "; ".join(f"{observation} with {action}" for observation, action in PAIRS)
        raise ConformanceError(f"{s.who} refuses all spaces that it is tried with: {tried}")
    for pair, (_, action) in enumerate(s.pairs):
        agent, obs = s.make(pair), s.observed(N, pair)
        for explore in (True, False):
            out, carry = _act(s, agent, obs, agent.carry(N), explore)
            if not isinstance(out, dict) or "action" not in out:
                raise ConformanceError(f"{s.who} returned {about(out)} from act; it must be a dict with 'action'")
            if fault := outside(action, out["action"]):
                raise ConformanceError(f"{s.who} with explore={explore} gives an action that {fault}")
            for name, value in {**leaves(out, "act's output"), **leaves(carry, "the carry")}.items():
                if not isinstance(value, Tensor) or value.shape[:1] != (N,):
                    raise ConformanceError(f"{s.who} returned {name} as {about(value)}; it must be ({N}, ...)")


def evaluation(s: AgentSubject) -> None:
    """``explore=False`` is greedy, but for a small epsilon."""
    if s.spec and SAMPLES_IN_EVALUATION in s.spec.tags:
        return
    agent, obs = s.make(), s.observed()
    one, two = (_act(s, agent, obs, agent.carry(ACTORS), False)[0]["action"] for _ in range(2))
    differing = float((one != two).float().mean())
    if differing > 0.2:
        raise ConformanceError(
            f"{s.who} ignores explore=False: asked twice, it gives other actions in {differing:.0%} of the copies; "
            f"evaluation is greedy but for a small epsilon (or the spec has the tag {SAMPLES_IN_EVALUATION!r})"
        )


def independence(s: AgentSubject) -> None:
    """The action of one copy does not depend on the observation of another."""
    agent, obs, outs = s.make(), s.observed(N), []
    for seen in (obs, torch.cat([obs[:-1], s.observed(1)])):
        seeding.seed_all(SEED)
        outs.append(_act(s, agent, seen, agent.carry(N), False)[0]["action"][:-1])
    if not torch.equal(*outs):
        raise ConformanceError(f"{s.who} mixes copies: an action changes with the observation of another copy")


CHECKS = (actions, in_place, randomness, evaluation, independence, host_reads, updates, saving)


def _act(s: AgentSubject, agent: Any, obs: Tensor, carry: Any, explore: bool) -> tuple[Batch, Any]:
    step = torch.zeros((), dtype=torch.int64, device=s.device)
    shown = {"obs": obs} if s.spec and s.spec.sees_state else obs  # the probe's state
    with torch.no_grad():
        return agent.act(shown, carry, step, explore)

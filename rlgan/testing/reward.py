"""Checks of a reward model: it judges rows one by one, learns apart from that, and is saved whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium.spaces import Space
from torch import Tensor

from rlgan.contract import check_reward as check_judged
from rlgan.contract import check_reward_model
from rlgan.core import seeding
from rlgan.core.protocols import Batch, Phase, Replay, Rollouts, Spaces
from rlgan.core.reward import RewardStage
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import ConformanceError
from rlgan.registry import Registry
from rlgan.testing.kit import Call, Check, accepted, bind, leaves, run_all, subject
from rlgan.testing.learner import SEED, Learner, host_reads, in_place, randomness, saving, updates
from rlgan.testing.probe import PAIRS, STEPS, Player, Probe

N, HORIZON = 8, 16
SOURCES = (Rollouts(HORIZON, N), Replay(capacity=64 * N, batch_size=16, every=N, start=32 * N, n_step=2))
"""Where rows come from: the two kinds of sources that agents learn from."""


@dataclass(frozen=True)
class RewardSubject(Learner):
    """A reward model under test."""

    pairs: tuple[tuple[Space, Space], ...]
    """The spaces that it does not refuse; it learns in the first ones."""
    keeps = "the same rows earn the same, until an update"

    def make(self, pair: int = 0) -> Any:
        """A new model; its random initial values differ from those of the one before."""
        observation, action = self.pairs[pair]
        spaces = Spaces(observation, action, STEPS, Probe(observation, action, self.device).stack, "probe")
        return self.factory(spaces, self.config, self.device)

    def uses(self, thing: Any, pair: int = 0) -> list[Call]:
        """``reward``, on rows of each source."""
        player = Player(self.pairs[pair][1], self.device)

        def call(rows: Batch) -> Call:
            return Call("reward", lambda model: _reward(model, rows, player), leaves(rows, "a row"), "the reward")

        return [call(rows) for rows in self.rows(thing, pair)[0]]

    def updates(self, thing: Any, count: int) -> Iterator[Call]:
        """Updates on rows of each source."""

        def call(rows: Batch) -> Call:
            return Call("update", lambda model: model.update(dict(rows)), leaves(rows, "a row"), "the update")

        return iter([call(rows) for rows in self.rows(thing)[1] for _ in range(count)])

    def rows(self, model: Any, pair: int = 0) -> tuple[list[Batch], list[Batch]]:
        """What the trainer's own sources give a model to judge and to learn from: a batch of each source."""
        check_reward_model(model, self.who)
        taps = []
        for source in SOURCES:
            player, tap = Player(self.pairs[pair][1], self.device), _Tap(model)
            env = VecEnv(Probe(*self.pairs[pair], self.device), N, self.device, name="probe")
            stream = Stream(env, player.act, player.carry)
            stream.begin()
            supply = make_source(Phase("train", source, lambda batch: {}), stream, tap)
            while not (tap.judged and tap.learnt):
                supply.next()
            taps.append(tap)
        return [tap.judged[-1] for tap in taps], [tap.learnt[-1] for tap in taps]


class _Tap(RewardStage):
    """Keeps the rows that pass, and changes nothing."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, None, "eager")
        self.judged: list[Batch] = []
        self.learnt: list[Batch] = []

    def __call__(self, rows: Batch) -> Tensor:
        self.judged.append({name: value.clone() for name, value in rows.items()})
        return rows["reward"]

    def learn(self, rows: int, draw: Callable[[int], Batch]) -> None:
        self.learnt.append({name: value.clone() for name, value in draw(self.model.batch_size).items()})


def check_reward(what: Any, config: Any = None, device: str = "cpu", spaces: tuple[Space, Space] | None = None) -> None:
    """Check a reward model: a name (``rnd``), a RewardSpec, or ``factory(spaces, config, device)``.

    It is tried in small random envs, with the spaces that its factory does not refuse by a UsageError, or with
    ``spaces`` (of observations and actions) alone. Without ``config`` the defaults of its settings are taken.

    Raises:
        ConformanceError: the first fault.
        UsageError: it refuses all spaces.
    """
    run_all(reward_checks(what, config, device, spaces=spaces))


def reward_checks(
    what: Any,
    config: Any = None,
    device: str = "cpu",
    registry: Registry | None = None,
    spaces: tuple[Space, Space] | None = None,
) -> list[Check]:
    """The checks of `check_reward`, to be run one by one."""
    found = subject("rewards", what, config, device, registry)

    def make(pair: tuple[Space, Space]) -> Any:
        return RewardSubject(**vars(found), pairs=(pair,)).make()

    pairs = accepted(found, PAIRS if spaces is None else (spaces,), make, "give spaces=(OBSERVATION, ACTION)")
    return bind(CHECKS, RewardSubject(**vars(found), pairs=pairs))


def rewards(s: RewardSubject) -> None:
    """``when``, ``every`` and ``batch_size`` are sound; a reward is a finite number for each row (T, N)."""
    for pair in range(len(s.pairs)):
        model = s.make(pair)
        player = Player(s.pairs[pair][1], s.device)
        for rows in s.rows(model, pair)[0]:
            if not bool(check_judged(model, dict(rows), player, s.who).isfinite().all()):
                raise ConformanceError(f"{s.who} gives a reward that is not finite")


def independence(s: RewardSubject) -> None:
    """The reward of a row does not depend on another row."""
    model, player = s.make(), Player(s.pairs[0][1], s.device)
    for rows in s.rows(model)[0]:
        foreign = {name: value.clone() for name, value in rows.items()}
        for value in foreign.values():
            value[-1, -1] = value[0, 0]
        outs = []
        for each in (rows, foreign):
            seeding.seed_all(SEED)
            outs.append(_reward(model, each, player).flatten()[:-1])
        if not torch.equal(*outs):
            raise ConformanceError(f"{s.who} mixes rows: a reward changes with another row")


CHECKS = (rewards, in_place, randomness, independence, host_reads, updates, saving)


def _reward(model: Any, rows: Batch, player: Player) -> Tensor:
    with torch.no_grad():  # as in a run
        return model.reward(dict(rows), player)

"""The contracts between the core and its plugins. Shapes: N copies, B minibatch, T horizon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from gymnasium.spaces import Space
from torch import Tensor

from rlgan.datasets import DataSet as DataSet

Observation = Any
"""A tensor (n, ...), or a dict of them where the space is a Dict."""
Batch = dict[str, Any]
"""Tensors by name; ``obs``, ``next_obs`` and ``final_obs`` are observations."""
State = dict[str, Tensor]
Step = dict[str, Tensor]
"""What one vector step gives: the next ``obs``; ``reward, terminated, truncated, valid`` of the row just stepped, and
whether a game was ``over`` with it; and whether the next row is the ``first`` of an episode."""


def mapped(fn: Callable[..., Any], *values: Any) -> Any:
    """``fn`` of tensors, or part by part of dicts of tensors."""
    if isinstance(values[0], dict):
        return {key: mapped(fn, *(value[key] for value in values)) for key in values[0]}
    return fn(*values)


@dataclass(frozen=True)
class Bound:
    """The value of a policy that nobody needs to run: an optimum, a linear programme, a published score."""

    given: float | Callable[[], float]
    """The value, or what computes it when it is first asked for."""
    how: str
    source: str

    @cached_property
    def value(self) -> float:
        """What nobody is above."""
        return self.given() if callable(self.given) else self.given


class Env(Protocol):
    """A problem as pure functions, batched over the leading dimension, with fixed shapes. It knows no reset logic, no
    time limit and no statistics: the VecEnv does these once for all.

    An env that can be watched has ``render(state, i)``, the picture of copy i (H, W, 3) uint8, ``fps``, and where its
    episodes are long ``film_every``, the steps from one picture of a film to the next. One with
    ``references()`` names policies for ``agent=reference:NAME``, and bounds: ``dict[str, Policy | Bound]``; where these
    may do more than agents, ``step`` takes actions of its ``reference_space`` too. ``evaluated()`` gives the env that
    evaluations and films play, where it is another one. ``protocol`` is text that names the data it plays, as by a
    hash: a run does not go on with other data.
    """

    observation_space: Space
    action_space: Space
    max_steps: int

    def reset(self, n: int, rng: torch.Generator | None) -> State:
        """Draw n starting states; every tensor is (n, ...)."""

    def observe(self, state: State) -> Observation:
        """Return what the agent sees of each state, (n, ...)."""

    def step(self, state: State, action: Tensor, rng: torch.Generator | None) -> tuple[State, Tensor, Tensor]:
        """Return the next state, reward (n,) float and terminated (n,) bool, changing nothing in place."""


Policy = Callable[[Any, torch.Generator | None], Tensor]
"""A reference policy: batched, sees the true state; that of a simulator on the CPU sees its observations."""


def _number(obs: Observation) -> Tensor:
    """Index of a model whose states are observed by their number."""
    return obs


@dataclass(frozen=True, eq=False)
class Model:
    """The table of a small env, for planning: S states, A actions, K outcomes of each.

    Action a in state s leads with probability ``prob[s, a, k]`` to ``next[s, a, k]``. Actions count from 0, whatever
    number the action space starts with. ValueError where the tensors are no such table.
    """

    next: Tensor
    """(S, A, K) int64."""
    prob: Tensor
    """(S, A, K) float64; sums to 1 over the outcomes."""
    reward: Tensor
    """(S, A, K) float64."""
    terminated: Tensor
    """(S, A, K) bool: no reward follows this outcome."""
    gamma: float | None
    """Discount of the criterion; None is the average reward per step, of an env that never terminates."""
    index: Callable[[Observation], Tensor] = _number
    """Numbers (n,) int64 of the states that observations (n, ...) show. The observation may be the number itself."""

    def __post_init__(self) -> None:
        shape = self.next.shape
        if len(shape) != 3 or any(part.shape != shape for part in (self.prob, self.reward, self.terminated)):
            raise ValueError("a model's next, prob, reward and terminated are each (S, A, K)")
        if not 0 <= int(self.next.min()) <= int(self.next.max()) < shape[0]:
            raise ValueError(f"a model of {shape[0]} states leads to states 0 to {shape[0] - 1} alone")
        if bool((wrong := ((self.prob.sum(-1) - 1).abs() > 1e-9) | (self.prob < 0).any(-1)).any()):
            state, action = wrong.nonzero()[0].tolist()
            raise ValueError(f"the outcomes of action {action} in state {state} have no probabilities that sum to 1")
        if self.gamma is None and bool(self.terminated.any()):
            raise ValueError("a model with the average criterion (gamma=None) never terminates")


@dataclass(frozen=True)
class Spaces:
    """What an agent is told of its run."""

    observation: Space
    action: Space
    steps: int
    """Length of the run in agent steps, summed over copies: what schedules are fractions of."""
    stack: int = 1
    """Frames that the env stacks along the first axis of an observation."""
    env: str = ""
    """Name of the env."""
    model: Callable[[], Model] | None = None
    """The env's model, where it has one."""
    references: Callable[[], Mapping[str, Policy | Bound]] | None = None
    """The env's reference policies and bounds, where it has some."""
    argument: str = ""
    """Of an agent that is a family: what follows the colon of its name."""
    copies: int = 1
    """Of the env."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The env's, by which `rlgan.gym.make_env` makes one more, for learners with a loop of their own."""


@dataclass(frozen=True)
class Rollouts:
    """On-policy rows: collect a horizon, prepare it once, pass over it in minibatches."""

    horizon: int
    """Rows of each copy."""
    minibatch: int | None = None
    """Rows of one update; None is the whole rollout, in order."""
    epochs: int = 1
    """Passes over the rollout."""
    sequence: int = 0
    """Rows that stay together in order, for recurrent agents: fields are (sequence, B, ...), and ``carry``, a dict of
    numbered parts, holds what was remembered before the first row of each; `prepare` sees the carry after row T as the
    last one. 0 shuffles single rows."""
    clip_reward: bool = False
    """As in `Replay`: the sign of the env's reward, to which a learned one is added."""


@dataclass(frozen=True)
class Priorities:
    """Draw rows of a replay by how much they surprised, as `rlgan.priorities` has it.

    The update returns ``priority`` (B,) beside its metrics: errors from 0 on, before they are weighted.
    """

    alpha: float
    """Exponent of priorities; 0 draws uniformly."""
    beta: float
    """Exponent of the weights that undo the bias, at the first step."""
    steps: int
    """Steps over which beta rises to 1."""


@dataclass(frozen=True)
class Replay:
    """Off-policy rows: a ring, sampled uniformly or by priority. A batch has the extras of ``act`` beside its fields.

    ``updates`` minibatches follow every ``every`` rows, whatever the number of copies: the ratio is the algorithm's.
    """

    capacity: int
    batch_size: int
    every: int = 1
    updates: int = 1
    start: int = 0
    n_step: int = 1
    gamma: float = 0.99
    clip_reward: bool = False
    """Store the sign of each reward. Records and evaluations see the raw one."""
    acting_carry: bool = False
    """The agent's carry matters in ``act`` alone, as that of noise does; rows do not remember it."""
    priorities: Priorities | None = None


@dataclass(frozen=True)
class Samples:
    """Real data, in an order that is shuffled anew for each pass; ``batch["real"]`` is (B, ...).

    With ``against`` real samples and as many of the learner's own are mixed, ``passes`` times in one order, before new
    ones are made: ``batch["mixed"]`` is (B, ...) and ``batch["is_real"]`` (B,) bool.
    """

    batch_size: int
    shuffle: bool = True
    """False keeps the order of the data set."""
    against: Callable[[int], Tensor] | None = None
    """Makes so many samples in the form of the real ones."""
    passes: int = 1


@dataclass(frozen=True)
class Sweeps:
    """Dynamic programming: nothing is collected. A step is one update, which sweeps over the model of `Spaces`."""


@dataclass(frozen=True)
class Own:
    """A loop of the learner's own, as another library has one: it collects by itself, in envs of its own.

    An update is one round of that loop. Beside metrics it returns ``steps``, how many it made, and ``games``, the
    (return, length) of each that ended. What the loop goes on with belongs in the learner's ``state_dict``.
    """


SourceSpec = Rollouts | Replay | Samples | Sweeps | Own


@dataclass(frozen=True)
class Phase:
    """One stretch of a learner's work, declared as data. The trainer runs it."""

    name: str
    source: SourceSpec
    update: Callable[[Batch], dict[str, Tensor]]
    """One minibatch: loss, backward, clip, optimiser. Returns 0-d metrics. May be captured. ``batch["step"]`` () is the
    number of agent steps so far, for schedules."""
    until: int | None = None
    """Budget in ``unit``; None is the steps of the run."""
    unit: Literal["steps", "updates"] = "steps"
    prepare: Callable[[Batch], Batch] | None = None
    """Rollouts only: once per rollout, under the parameters that collected it. It is given rows (T, N, ...) with the
    true ``next_obs``, and ``obs`` (T + 1, N, ...). It may clear ``valid`` where rows shall not be learned from."""
    periodic: tuple[tuple[int, Callable[[], None]], ...] = ()
    """``(k, f)``: f runs after every k-th update, outside of what is captured. Counted on the host, so that rare and
    costly work (copying a large target network) costs nothing in between."""
    delayed: tuple[tuple[int, Callable[[Batch], None]], ...] = ()
    """``(k, f)``: f is given the minibatch of every k-th update, after it and before ``periodic``. Counted on the host
    and captured by itself, as an actor that learns more slowly than its critics."""
    done: Callable[[], bool] | None = None
    """Whether nothing is left to do, so that the phase ends before its budget. Asked between iterations; may read."""


class Stateful(Protocol):
    """What can be saved; `rlgan.store.state.Saved` does it for named attributes."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes, as a tree of tensors and numbers."""

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a tree that state_dict made into the live tensors."""


class Learner(Stateful, Protocol):
    """What agents and generators share. No base class is needed."""

    def phases(self) -> list[Phase]:
        """Return the work to be done, in order. Nothing to learn is an empty list: a run is then an evaluation."""


class Agent(Learner, Protocol):
    """Acts and learns."""

    def carry(self, n: int) -> Any:
        """Fresh recurrent state of n copies, or None."""

    def act(self, obs: Observation, carry: Any, step: Tensor, explore: bool) -> tuple[Batch, Any]:
        """Return ``{"action": (n, ...), extras}`` and the next carry; ``step`` () int64 counts agent steps so far.

        ``explore=False`` is the evaluation of the protocol, which may keep a small epsilon.
        """


class Generator(Learner, Protocol):
    """Makes samples and learns.

    One of sequences also has ``log_prob(tokens)``, the log probability (n, L) of each token of (n, L), 0 after the end
    of a sequence; its ``sample`` takes ``prefix``, the tokens (P,) that each sample begins with, or None; and both
    divide logits by its ``temperature``, which an evaluation may set.
    """

    def sample(self, n: int) -> Tensor:
        """Return n samples (n, ...) in the form of ``DataSet.real``, from the device's default random numbers."""


class RewardModel(Stateful, Protocol):
    """A reward that is learned beside an agent, a stage between collecting and learning.

    Rows are time-first, (T, N, ...), and lead from ``obs`` to ``next_obs``, the true next one. Invalid rows get
    reward 0, whatever the model says.
    """

    when: Literal["collect", "sample"]
    """collect: the reward of the visit, stored with the row. sample: computed anew whenever a row is drawn."""
    every: int
    """Rows between two updates of the model."""
    batch_size: int
    """Rows in one update."""

    def reward(self, rows: Batch, learner: Any) -> Tensor:
        """Return the reward (T, N) that stands in place of ``rows["reward"]``."""

    def update(self, rows: Batch) -> dict[str, Tensor]:
        """One minibatch of rows (1, B, ...) as they were collected; returns 0-d metrics. May be captured."""

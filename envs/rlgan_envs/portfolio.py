"""Portfolio selection (Cover 1991; Jiang et al. 2017): what share of wealth to hold in each asset, bar after bar.

A synthetic market whose best growth is known, the classic markets of the literature, or prices of one's own.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from gymnasium.spaces import Box
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.datasets import fingerprint
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score
from rlgan_envs import portfolio_kelly as kelly
from rlgan_envs.portfolio_picture import Chart
from rlgan_envs.portfolio_prices import load
from rlgan_envs.portfolio_weights import least_variance, log_optimal

LIMIT = 10.0
"""Bound of actions. At -LIMIT an asset is not held at all."""
USUAL_COST = 0.0025
"""Of markets that are not synthetic; as in Jiang et al. (2017)."""
PICTURES = 1024
"""Pictures in a film of a long evaluation, about."""
EXACT = 1e-10
"""Error that is left of the remainder after a trade."""
MEMORY = 250
"""Bars that variances are estimated from."""


@dataclass(frozen=True)
class PortfolioConfig:
    """Settings of the market."""

    prices: str = "synthetic"
    """synthetic; nyse_o, nyse_n, tse, sp500, msci or djia from the package universal-portfolios; or a CSV file."""
    cost: Annotated[float, Ge(0), Le(0.1)] | None = None
    """Share of what is bought or sold that a trade costs; none = 0 in the synthetic market, 0.0025 in others."""
    lag: Annotated[int, Ge(0), Le(1)] = 1
    """Bars between the last one that is seen and the trade; 0 trades at the very close that was looked at."""
    window: Annotated[int, Ge(1)] = 31
    """Bars that are seen."""
    train: Annotated[float, Gt(0), Le(1)] | None = None
    """Share of bars, the earliest, that training plays in; evaluations play the later rest. 1 = both play all; none =
    0.75, and 0.9375 in the synthetic market."""
    out_of_range: Literal["clip", "refuse"] = "clip"
    """An action out of bounds is cut to them, or nothing is traded. Both are counted; one with a NaN is refused."""
    max_steps: Annotated[int, Gt(0)] = 256
    """Bars of an episode in training, which begins anywhere; an evaluation plays all bars of its part, once."""


class Portfolio:
    """T bars, A assets and cash, which comes first: weights are (n, A + 1). Before bar ``t`` the weights are chosen
    and traded; then they earn the bar. Never terminated; wealth begins as 1 in cash.

    State, (n,) each but ``weights`` as of the last trade: bar ``t``, ``start`` and ``end`` of the episode;
    ``log_wealth``, its ``peak``, the largest ``drawdown`` from it; sums of ``turnover``, of what was ``paid`` (log) and
    of actions out of range, ``odd``. Action (n, A + 1): logits in +-LIMIT, see `weights`. Reward: log growth of wealth
    in the bar, after costs.
    """

    fps = 30
    film_every = 1

    def __init__(self, config: PortfolioConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.market = market = load(config.prices)
        self.protocol = fingerprint(market.relatives, market.listed)
        self.bars, self.assets = market.relatives.shape
        cost, self.train = (0.0, 0.9375) if market.outcomes is not None else (USUAL_COST, 0.75)
        self.cost = cost if config.cost is None else config.cost
        self.train = self.train if config.train is None else config.train
        self.rounds = rounds(self.cost)
        self.split = math.floor(self.train * self.bars)
        if not self.split > 0 or (self.train < 1 and self.split == self.bars):
            raise UsageError(
                f"env=portfolio: env.train={self.train:g} of {self.bars} bars leaves one part empty: "
                "write another share, or more prices"
            )
        if config.max_steps > self.split:
            raise UsageError(
                f"env=portfolio: env.max_steps={config.max_steps} is longer than the {self.split} bars of "
                f"env.prices={config.prices} that training plays in; write at most {self.split}"
            )
        self.first, self.last, self.max_steps = 0, self.split, config.max_steps
        logs = np.log(market.relatives)
        # nothing is seen before the first bar, and two rows follow the last one, as room for the weights
        padded = np.pad(logs, ((config.window + 1, 2), (0, 0)))
        self.logs = logs
        scale = float(logs[: self.split].std()) or 1.0
        seen = torch.as_tensor(padded / scale, dtype=dtype, device=device).contiguous()
        width = config.window * self.assets + self.assets + 1
        self.windows = seen.as_strided((self.bars + 2, width), (self.assets, 1))
        """Row t + 1 has the bars that end before bar t, and room for the weights: what lies there is overwritten. All
        rows share the memory of one series, and an observation is copied once, not twice as by torch.cat."""
        with_cash = np.concatenate((np.ones((self.bars, 1)), market.relatives), 1)
        self.relatives = torch.as_tensor(with_cash, dtype=dtype, device=device)
        self.whole = bool(market.listed.all())
        self.listed = torch.as_tensor(market.listed, device=device)
        self.observation_space = Box(-np.inf, np.inf, (width,), np.float32)
        self.action_space = Box(-LIMIT, LIMIT, (self.assets + 1,), np.float32)
        self.charts: dict[int, Chart] = defaultdict(lambda: Chart(self))

    def evaluated(self) -> Portfolio:
        """The same market in its later part, all of which is one episode."""
        later = copy.copy(self)
        later.first = self.split if self.train < 1 else 0
        later.last, later.max_steps = self.bars, self.bars - later.first
        later.film_every = math.ceil(later.max_steps / PICTURES)
        later.charts = defaultdict(lambda: Chart(later))
        return later

    def reset(self, n: int, rng: Generator | None) -> State:
        """Any bar that leaves room for an episode."""
        choices = self.last - self.first - self.max_steps + 1
        start = torch.randint(choices, (n,), generator=rng, device=self.device) + self.first
        weights = torch.zeros((n, self.assets + 1), device=self.device, dtype=self.dtype)
        weights[:, 0] = 1.0
        names = ("log_wealth", "peak", "drawdown", "turnover", "paid", "odd")
        zeros = torch.zeros(n, device=self.device, dtype=self.dtype)
        return {
            "t": start,
            "start": start,
            "end": start + self.max_steps,
            "weights": weights,
            **dict.fromkeys(names, zeros),
        }

    def observe(self, state: State) -> Tensor:
        """Log relatives of the bars seen over their deviation in the train part, oldest first, and the weights that
        were chosen last, (n, window A + A + 1). Drifted weights would tell of bars that are not seen yet."""
        seen = self.windows.index_select(0, state["t"] + (1 - self.config.lag))
        seen[:, -self.assets - 1 :] = state["weights"]
        return seen

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Trade to the weights chosen, then earn the bar."""
        # the row after the last bar is no bar: what it gives is thrown away
        t = state["t"].clamp(max=self.bars - 1)
        drifted = self.drifted(state)
        furthest = action.abs().amax(1)  # NaN where one is
        odd = ~(furthest <= LIMIT)
        refused = odd if self.config.out_of_range == "refuse" else furthest.isnan()
        chosen = self.weights(action.to(self.dtype).clamp(-LIMIT, LIMIT), t)
        kept = drifted if self.whole else self.weights(logits(drifted), t)
        weights = torch.where(refused[:, None], kept, chosen)
        log_left = remainder(drifted, weights, self.cost, self.rounds).log()
        growth = log_left + (self.relatives.index_select(0, t) * weights).sum(1).log()
        log_wealth = state["log_wealth"] + growth
        peak = state["peak"].maximum(log_wealth)
        following = {
            "t": t + 1,
            "start": state["start"],
            "end": state["end"],
            "weights": weights,
            "log_wealth": log_wealth,
            "peak": peak,
            "drawdown": state["drawdown"].maximum(peak - log_wealth),
            "turnover": state["turnover"] + (weights - drifted).abs().sum(1),
            "paid": state["paid"] - log_left,
            "odd": state["odd"] + odd,
        }
        return following, growth, torch.zeros_like(odd)

    def drifted(self, state: State) -> Tensor:
        """What the weights of the last trade have become at the end of the bar, (n, A + 1)."""
        grown = state["weights"] * self.relatives.index_select(0, (state["t"] - 1).clamp(min=0))
        return grown / grown.sum(1, keepdim=True)

    def weights(self, action: Tensor, t: Tensor) -> Tensor:
        """Softmax (n, A + 1) of actions in +-LIMIT over what is above -LIMIT and can be traded before bars t (n,).

        Where there is nothing of the kind all is cash.
        """
        held = action > -LIMIT
        if not self.whole:
            held[:, 1:] &= self.listed.index_select(0, t)
        share = held * (action - action.amax(1, keepdim=True)).exp()
        total = share.sum(1, keepdim=True)
        none = total == 0
        cash = torch.cat((none.to(share.dtype), torch.zeros_like(share[:, 1:])), 1)
        return (share + cash) / torch.where(none, 1.0, total)

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Log growth and turnover of a bar, log of what was paid, largest loss from a peak, actions out of range."""
        bars = (state["t"] - state["start"]).clamp(min=1)
        return {
            "growth": state["log_wealth"] / bars,
            "turnover": state["turnover"] / bars,
            "paid": state["paid"],
            "drawdown": -torch.expm1(-state["drawdown"]),
            "out_of_range": state["odd"],
        }

    def equal(self, state: State) -> Tensor:
        """The same weight for each asset that can be traded, (n, A + 1)."""
        listed = self.listed.index_select(0, state["t"].clamp(max=self.bars - 1))
        none = ~listed.any(1, keepdim=True)
        share = torch.cat((none, listed), 1).to(self.dtype)
        return share / share.sum(1, keepdim=True)

    def least_variance(self, t: int) -> Tensor:
        """Weights (A + 1,) of least variance over the last bars seen, among assets that had a price in all of them."""
        end = max(t - self.config.lag, 0)
        begin = max(end - MEMORY, 0)
        listed = self.market.listed[[*range(begin, end), min(t, self.bars - 1)]].all(0)
        (among,) = np.nonzero(listed)
        weights = torch.zeros(self.assets + 1, dtype=torch.float64)
        past = self.logs[begin:end, among]
        if len(past) == 0 or not bool((past != past[0]).any()):
            return self.equal({"t": torch.tensor([t], device=self.device)})[0].cpu().double()
        weights[1 + torch.from_numpy(among)] = torch.from_numpy(least_variance(past))
        return weights

    def best_constant(self, start: int, end: int) -> Tensor:
        """Weights (A + 1,) of the best constant rebalanced portfolio of these bars, before costs, among cash and the
        assets that could be traded in all of them."""
        among = np.concatenate(([True], self.market.listed[start:end].all(0)))
        with_cash = np.concatenate((np.ones((end - start, 1)), self.market.relatives[start:end]), 1)
        weights = torch.zeros(self.assets + 1, dtype=torch.float64)
        weights[torch.from_numpy(among)] = torch.from_numpy(log_optimal(with_cash[:, among]))
        return weights

    def references(self) -> dict[str, Policy | Bound]:
        """What needs no learning; and in the synthetic market what is best."""

        def random(state: State, rng: Generator | None) -> Tensor:
            return logits(torch.empty_like(state["weights"]).exponential_(generator=rng))

        def cash(state: State, rng: Generator | None) -> Tensor:
            return logits(torch.zeros_like(state["weights"]))

        def buy_and_hold(state: State, rng: Generator | None) -> Tensor:
            begins = (state["t"] == state["start"])[:, None]
            return logits(torch.where(begins, self.equal(state), self.drifted(state)))

        found: dict[str, Policy | Bound] = {
            "random": random,
            "cash": cash,
            "buy-and-hold": buy_and_hold,
            "constant-rebalanced": lambda state, rng: logits(self.equal(state)),
            "minimum-variance": self._found(self.least_variance, "t"),
            "best-constant": self._found(self.best_constant, "start", "end"),
        }
        outcomes = self.market.outcomes
        if outcomes is not None:
            best = kelly.weights()
            found["kelly"] = self._found(
                lambda t: torch.from_numpy(best[outcomes[t - kelly.DELAY] if t >= kelly.DELAY else 0]), "t"
            )
            if self.cost == 0:
                how = "the relative entropy of what is probable and what is insured, times the bars of an evaluation"
                value = kelly.growth() * self.evaluated().max_steps
                found["optimum"] = Bound(value, how, "Kelly (1956); the mean over all markets of this kind")
        return found

    def _found(self, find: Callable[..., Tensor], *names: str) -> Policy:
        """The policy of weights (A + 1,) that depend on some numbers of the state alone, each found once."""
        known: dict[tuple[int, ...], Tensor] = {}

        def policy(state: State, rng: Generator | None) -> Tensor:
            asked = torch.stack([state[name] for name in names], 1).tolist()
            for key in map(tuple, asked):
                if key not in known:
                    known[key] = find(*key)
            rows = torch.stack([known[tuple(key)] for key in asked])
            return logits(rows.to(self.device, self.dtype))

        return policy

    def render(self, state: State, i: int) -> np.ndarray:
        """Wealth so far beside that of the references, and the weights, (480, 720, 3) uint8."""
        return self.charts[i].draw({name: value[i : i + 1] for name, value in state.items()})


def logits(weights: Tensor) -> Tensor:
    """Actions (n, K) that choose weights (n, K) >= 0, or multiples of them; exactly 0 stays 0."""
    most = weights.amax(1, keepdim=True)
    return ((weights / torch.where(most > 0, most, 1.0)).log() + LIMIT).clamp(min=-LIMIT)


def rounds(cost: float) -> int:
    """Rounds of `remainder` that leave an error below ``EXACT``; each leaves ``(2c - c^2) / (1 - c)`` of it."""
    return math.ceil(math.log(EXACT) / math.log((2 * cost - cost**2) / (1 - cost))) if cost > 0 else 0


def remainder(drifted: Tensor, weights: Tensor, cost: float, rounds: int) -> Tensor:
    """Share of wealth that is left (n,) after trading from ``drifted`` to ``weights`` (n, K); the first is cash.

    What is sold pays a share c, and so does what is bought with the proceeds: the fixed point (Jiang et al. 2017) of
    ``m = (1 - c w'_0 - (2 c - c^2) sum_i>0 (w'_i - m w_i)+) / (1 - c w_0)``.
    """
    old, new = drifted[:, 1:], weights[:, 1:]
    left = 1 - cost * (new - old).abs().sum(1)
    for _ in range(rounds):
        sold = (old - left[:, None] * new).clamp(min=0).sum(1)
        left = (1 - cost * drifted[:, 0] - (2 * cost - cost**2) * sold) / (1 - cost * weights[:, 0])
    return left


def _synthetic(config: Any) -> bool:
    """Whether the known scores are of this market."""
    return config.prices == "synthetic" and not config.cost and config.train is None


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Portfolio."""
    yield EnvSpec(
        "portfolio",
        Portfolio,
        PortfolioConfig,
        "share wealth among assets, bar after bar: a market with known best growth, real ones, or a CSV of prices",
        scores=(
            Score("random", -52.0, "weights drawn evenly, the 16,384 later bars"),
            Score("constant-rebalanced", 81.7, "a third in each stock, the same bars"),
            Score("kelly", 320.6, "the best weights for each bar, the same bars; 350.3 expected"),
        ),
        scored=_synthetic,
        tags=("business", "continuous"),
    )

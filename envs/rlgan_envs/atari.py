"""Atari 2600 games through ale-py's ``AtariVectorEnv``: ``env=breakout``, ``env=atari:<rom>``.

A game restarts at its end only. A lost life is a ``terminated`` row followed by a normal one (``life_loss=terminal``),
unlike ale-py's ``episodic_life``, which restarts the whole game. Rewards are the raw score; an agent that wants them
clipped clips them itself. ale-py is GPL-2.0, an optional extra, and imported on use only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from gymnasium.vector import AutoresetMode, VectorEnv

from rlgan.errors import PluginError, UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class AtariConfig:
    """The protocol of the game, part of every score's fingerprint."""

    sticky: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability, per frame, that the emulator repeats the action before (0.25 in Machado et al. 2018)."""
    noops: Annotated[int, Ge(0)] = 30
    """A game starts after a random number of no-ops, fewer than this."""
    life_loss: Literal["terminal", "ignore"] = "terminal"
    """terminal: no bootstrapping over a lost life. The game itself goes on either way."""
    fire: bool = True
    """Press FIRE after a lost life, in games that have it: Breakout serves no ball without."""
    frame_skip: Annotated[int, Gt(0)] = 4
    """Emulator frames per step; the last two are merged by their maximum."""
    max_frames: Annotated[int, Gt(0)] = 108_000
    """Emulator frames after which a game is truncated."""
    full_actions: bool = False
    """All 18 actions instead of those that the game uses."""
    threads: Annotated[int, Ge(0)] = 0
    """Emulator threads; 0 = one per core."""


class Atari(VectorEnv):
    """``copies`` copies of one game, uint8 (4, 84, 84) observations, oldest frame first, in NEXT_STEP mode.

    ``info["over"]`` marks the end of a game; ``terminated`` also marks lost lives, if the config says so.
    """

    stack = 4
    fresh_arrays = True

    def __init__(self, rom: str, copies: int, config: AtariConfig, render: bool = False):
        ale = _ale()
        self.sim = ale.AtariVectorEnv(_known(ale, rom), copies, **_arguments(config), stack_num=self.stack)
        # Gray frames of 84 x 84 are no picture: a second emulator in step with the first one shows the game as it is.
        self._mirror: Any = None
        if render:
            picture = {"img_height": 210, "img_width": 160, "grayscale": False, "stack_num": 1}
            self._mirror = ale.AtariVectorEnv(rom, copies, **_arguments(config), **picture)
        self.num_envs = copies
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_fps": 60 / config.frame_skip}
        self.single_observation_space = self.sim.single_observation_space
        self.single_action_space = self.sim.single_action_space
        self.observation_space, self.action_space = self.sim.observation_space, self.sim.action_space
        self.max_steps = config.max_frames // config.frame_skip
        names = [action.name for action in self.sim.ale.get_action_set()]
        self._fire_action = names.index("FIRE") if config.fire and "FIRE" in names else None
        self._terminal = config.life_loss == "terminal"
        self._lives: Array = np.zeros(copies, np.int32)
        self._lost: Array = np.zeros(copies, bool)
        self._ended: Array = np.zeros(copies, bool)
        self._frames: Array = np.zeros((copies, 1, 210, 160, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start new games in all copies."""
        if self._mirror is not None:
            self._frames, _ = self._mirror.reset(seed=seed, options=options)
        obs, info = self.sim.reset(seed=seed, options=options)
        self._lives = info["lives"]
        self._lost, self._ended = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        return obs, info

    def send(self, actions: Array) -> None:
        """Begin a step."""
        if self._fire_action is not None:
            actions = np.where(self._lost, self._fire_action, actions)
        self.sim.send(actions)
        if self._mirror is not None:
            self._mirror.send(actions)

    def recv(self) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Finish the step."""
        obs, reward, terminated, truncated, info = self.sim.recv()
        if self._mirror is not None:
            self._frames = self._mirror.recv()[0]
        over = terminated | truncated
        self._lost = (info["lives"] < self._lives) & ~over & ~self._ended
        self._lives, self._ended = info["lives"], over
        return obs, reward, terminated | self._lost if self._terminal else terminated, truncated, {**info, "over": over}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all copies."""
        self.send(actions)
        return self.recv()

    def frame(self, i: int) -> Array:
        """The screen of copy ``i`` in colour, uint8 (210, 160, 3)."""
        return self._frames[i, 0]


def _arguments(config: AtariConfig) -> dict[str, Any]:
    return {
        "num_threads": config.threads,
        "max_num_frames_per_episode": config.max_frames,
        "repeat_action_probability": config.sticky,
        "full_action_space": config.full_actions,
        "frameskip": config.frame_skip,
        "noop_max": config.noops,
        # With life_loss_info, terminated is either a lost life or the end of a game, and games that count no lives
        # (Pong, Enduro) leave no way to tell which. Without it, it is the end, and lives are compared here.
        "life_loss_info": False,
        "episodic_life": False,
        "reward_clipping": False,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }


def _ale() -> ModuleType:
    try:
        import ale_py
    except ImportError as error:
        raise PluginError('Atari games need ale-py: pip install "rlgan[atari]"') from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py


def _known(ale: ModuleType, rom: str) -> str:
    roms = ale.roms.get_all_rom_ids()
    if rom in roms:
        return rom
    near = difflib.get_close_matches(rom.replace("-", "_").lower(), roms, n=3, cutoff=0.5)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise UsageError(f"ale-py has no ROM {rom!r} among its {len(roms)}.{hint} Write it as in env=atari:ms_pacman.")


def make(config: AtariConfig, argument: str, copies: int, render: bool = False) -> Atari:
    """The game named by ``argument``, an ale-py ROM id."""
    return Atari(argument, copies, config, render)


_NOOP_STARTS = "google-deepmind/dqn_zoo atari_data.py: 1-30 no-ops, 108,000 frames, no sticky actions"
_GAMES: dict[str, tuple[str, tuple[Score, ...]]] = {
    name: (rom, (Score("random", random, _NOOP_STARTS), Score("human", human, _NOOP_STARTS)))
    for name, rom, random, human in (
        ("beamrider", "beam_rider", 363.9, 16926.5),
        ("breakout", "breakout", 1.7, 30.5),
        ("enduro", "enduro", 0.0, 860.5),
        ("pong", "pong", -20.7, 14.6),
        ("qbert", "qbert", 163.9, 13455.0),
        ("seaquest", "seaquest", 68.4, 42054.7),
        ("spaceinvaders", "space_invaders", 148.0, 1668.7),
    )
}
_BREAKOUT = (
    Score("DQN, 50M steps", 401.2, "Mnih et al. 2015, as quoted in CleanRL's docs"),
    Score("DQN, 10M steps", 366.9, "CleanRL dqn_atari, training-time epsilon 0.01, 3 seeds"),
)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Yield the family of all ROMs, and the seven games of the 2013 DQN paper by plain name."""
    summary = "any Atari 2600 game of ale-py: env=atari:<rom>"
    yield EnvSpec(
        "atari",
        make,
        AtariConfig,
        summary,
        host=True,
        family=True,
        members=lambda: _ale().roms.get_all_rom_ids(),
        extra="atari",
        tags=("atari", "pixels"),
    )
    for name, (rom, scores) in _GAMES.items():
        yield EnvSpec(
            name,
            partial(_game, rom),
            AtariConfig,
            f"Atari {rom.replace('_', ' ')}: raw score over whole games",
            host=True,
            scores=scores + (_BREAKOUT if name == "breakout" else ()),
            extra="atari",
            tags=("atari", "pixels"),
        )


def _game(rom: str, config: AtariConfig, argument: str, copies: int, render: bool = False) -> Atari:
    return make(config, rom, copies, render)

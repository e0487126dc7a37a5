"""What a plugin gives, compared with what it declares, before a run begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlgan.core.protocols import Batch, DataSet, Env, Phase
from rlgan.core.rows import about, blank
from rlgan.core.vec import STUCK, called, choices, mask_width
from rlgan.errors import EnvError, PluginError, guarded
from rlgan.report.statistics import OWN
from rlgan.store.durable import dtype_name
from rlgan.store.tree import encode, is_name

FAR = 1e6
"""A bound beyond this is none."""
NAMES = "names are strings without '/' that do not begin with '$'"


def check_rows(env: Env, n: int, device: torch.device, name: str) -> None:
    """Reset and step ``n`` copies once, and compare shapes, dtypes and devices with what the env declares.

    Draws from the default generator: a run calls it inside `seeding.fork`.

    Raises:
        EnvError: the first thing that is wrong.
    """
    for attribute in ("observation_space", "action_space", "max_steps", "reset", "observe", "step"):
        if not hasattr(env, attribute):
            raise EnvError(f"env {name} has no {attribute}: every env must have it")
    for attribute in ("observation_space", "action_space"):
        if not isinstance(space := getattr(env, attribute), Space):
            raise EnvError(f"env {name} has {attribute}={space!r:.80}; it must be one of gymnasium.spaces")
    if not isinstance(env.max_steps, int) or env.max_steps < 1:
        raise EnvError(f"env {name} has max_steps={env.max_steps!r}; it must be a whole number of at least 1")
    state = called(name, "in its reset", env.reset, n, None)
    if not isinstance(state, dict) or not state:
        raise EnvError(f"env {name} returned {about(state)} from reset; it must be a dict of tensors ({n}, ...)")
    for key, value in state.items():
        if not is_name(key):
            raise EnvError(f"env {name} has a state named {key!r}; {NAMES}")
        if not isinstance(value, Tensor) or value.shape[:1] != (n,) or value.device.type != device.type:
            said = f"the state's {key!r} as {about(value)} from reset"
            raise EnvError(f"env {name} returned {said}; it must be a tensor ({n}, ...) on {device.type}")
    shown = blank(env.observation_space, n, device)
    _compare(name, "the observation", called(name, "in its observe", env.observe, state), shown)
    action = sample(env.action_space, n, 0, device)
    result = called(name, "in its step", env.step, {key: value.clone() for key, value in state.items()}, action, None)
    if not isinstance(result, tuple) or len(result) != 3:
        raise EnvError(f"env {name} returned {about(result)} from step; it must be (state, reward, terminated)")
    following, reward, terminated = result
    _compare(name, "the state", following, state, " from step")
    _compare(name, "the reward", reward, torch.empty(n, device=device))
    _compare(name, "terminated", terminated, torch.empty(n, dtype=torch.bool, device=device))
    _compare(name, "the observation", called(name, "in its observe", env.observe, following), shown)
    if hasattr(env, "metrics") and (taken := set(OWN) & called(name, "in its metrics", env.metrics, state).keys()):
        raise EnvError(f"env {name} has a metric named {min(taken)!r}, which every record has: give it another name")
    if hasattr(env, "action_mask"):
        mask, width = called(name, "in its action_mask", env.action_mask, state), mask_width(env.action_space)
        _compare(name, "the action mask", mask, torch.empty((n, width), dtype=torch.bool, device=device))
        if not bool(choices(mask, env.action_space).all()):
            raise EnvError(f"env {name} {STUCK}")


def check_names(space: Space, name: str) -> None:
    """EnvError where a part of observations has a name by which nothing can be saved."""
    if isinstance(space, Dict):
        for key, part in space.items():
            if not is_name(key):
                raise EnvError(f"env {name} shows a part named {key!r}; {NAMES}")
            check_names(part, name)


def _compare(name: str, what: str, value: Any, like: Any, where: str = "") -> None:
    """EnvError unless a tensor, or a dict of them, has the keys, shapes, dtypes and devices of another."""
    if isinstance(like, dict):
        if not isinstance(value, dict) or value.keys() != like.keys():
            got = sorted(value) if isinstance(value, dict) else about(value)
            raise EnvError(f"env {name} returned {what} as {got}{where}; it must have the keys {sorted(like)}")
        for key, part in like.items():
            _compare(name, f"{what}'s {key!r}{where}", value[key], part)
    elif about(value) != about(like):
        raise EnvError(f"env {name} returned {what} as {about(value)}; it must be {about(like)}")


def check_learner(learner: Any, uses: tuple[str, ...], who: str) -> None:
    """Ask an agent or a generator for what a run asks of it: its ``uses``, as ``act``, its phases and its state.

    ``who`` begins the sentence.

    Raises:
        PluginError: the first thing that is wrong.
    """
    _check_saved(learner, (*uses, "phases"), who)
    phases = guarded(PluginError, who, "in its phases", learner.phases)
    if not isinstance(phases, list):
        raise PluginError(f"{who} returned {about(phases)} from phases; it must be a list of Phase, which may be empty")
    for phase in phases:
        if not isinstance(phase, Phase):
            raise PluginError(f"{who} returned a list with {about(phase)} from phases; it must be a list of Phase")


def check_agent(agent: Any, spaces: tuple[Space, Space], n: int, device: torch.device, who: str) -> None:
    """Let an agent act once on ``n`` observations; ``who`` begins the sentence.

    ``spaces`` are those of one observation and one action. Draws from the default generator, as `check_rows` does.

    Raises:
        PluginError: the first thing that is wrong.
    """
    obs, step = observations(spaces[0], n, device), torch.zeros((), dtype=torch.int64, device=device)
    carry = guarded(PluginError, who, "in its carry", agent.carry, n)
    with torch.no_grad():
        given = guarded(PluginError, who, "in its act", agent.act, obs, carry, step, True)
    if not isinstance(given, tuple) or len(given) != 2:
        raise PluginError(f"{who} returned {about(given)} from act; it must be (a dict with 'action', the next carry)")
    out, _ = given
    if not isinstance(out, dict) or "action" not in out:
        said = f"a dict with {sorted(out)}" if isinstance(out, dict) else about(out)
        raise PluginError(f"{who} returned {said} from act; it must be a dict with 'action'")
    action, like = out["action"], blank(spaces[1], n, device)
    if isinstance(action, Tensor) and action.is_floating_point() == like.is_floating_point():
        action = action.to(like.dtype)
    if about(action) != about(like):
        raise PluginError(f"{who} returned actions as {about(action)}; they must be {about(like)}")
    if fault := outside(spaces[1], action):
        raise PluginError(f"{who} gives an action that {fault}")


def check_generator(generator: Any, data: DataSet, n: int, device: torch.device, who: str) -> Tensor:
    """Let a generator make ``n`` samples, compare them with the data's and return them; ``who`` begins the sentence.

    Draws from the default generator, as `check_rows` does.

    Raises:
        PluginError: the first thing that is wrong.
    """
    made = guarded(PluginError, who, "in its sample", generator.sample, n)
    like = torch.empty((n, *data.real.shape[1:]), dtype=data.real.dtype, device=device)
    if about(made) != about(like):
        said = f"returned {about(made)} from sample({n})"
        raise PluginError(f"{who} {said}; it must be {about(like)}, as DataSet.real is")
    if made.requires_grad:
        raise PluginError(f"{who} returned samples with their graph: sample under torch.no_grad()")
    return made


def check_reward_model(model: Any, who: str) -> None:
    """Compare a reward model with what a run asks of it; ``who`` begins the sentence.

    Raises:
        PluginError: the first thing that is wrong.
    """
    _check_saved(model, ("reward", "update"), who)
    if (when := getattr(model, "when", None)) not in ("collect", "sample"):
        raise PluginError(f"{who} has when={when!r}; it must be 'collect' or 'sample'")
    for name in ("every", "batch_size"):
        value = getattr(model, name, None)
        if type(value) is not int or value < 1:
            raise PluginError(f"{who} has {name}={value!r}; it must be a whole number of at least 1")


def check_reward(model: Any, rows: Batch, learner: Any, who: str) -> Tensor:
    """Let a reward model judge rows (T, N, ...) once, as in a run, and return the reward; ``who`` begins the sentence.

    Drawn rows may lie far from any game's, so a reward that is not finite is none of its faults.

    Raises:
        PluginError: the first thing that is wrong.
    """
    with torch.no_grad():
        reward, shape = guarded(PluginError, who, "in its reward", model.reward, rows, learner), rows["reward"].shape
    if not isinstance(reward, Tensor) or not reward.is_floating_point() or reward.shape != shape:
        raise PluginError(f"{who} returned {about(reward)} from reward; it must be floats of {tuple(shape)}")
    if reward.requires_grad:
        raise PluginError(f"{who} returned a reward with its graph, even under no_grad: detach it")
    return reward


def _check_saved(thing: Any, methods: tuple[str, ...], who: str) -> None:
    """PluginError unless it has the methods, and a state that can be saved."""
    for name in (*methods, "state_dict", "load_state_dict"):
        if not callable(getattr(thing, name, None)):
            kind = who.rpartition(" ")[0]
            raise PluginError(f"{who} has no {name}(): every {kind} must have it")
    state = guarded(PluginError, who, "in its state_dict", thing.state_dict)
    tensors: dict[str, Tensor] = {}
    try:
        encode(state, tensors)
        for name, tensor in tensors.items():
            dtype_name(name, tensor)
    except TypeError as error:
        raise PluginError(f"{who} has a state_dict that cannot be saved: {error}") from error


def observations(space: Space, n: int, device: torch.device) -> Any:
    """Draw n observations (n, ...), or a dict of such, as `sample` does; every action is allowed in them."""
    obs = sample(_within_reach(space), n, 0, device)
    if isinstance(obs, dict) and "action_mask" in obs:
        obs["action_mask"].fill_(1)
    return obs


def sample(space: Space, n: int, seed: int, device: torch.device) -> Any:
    """Draw n values, (n, ...) or a dict of such, the same for the same seed; no global generator is touched."""
    many = batch_space(space, n)
    many.seed(seed)

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors(part) for key, part in value.items()}
        return torch.from_numpy(np.asarray(value)).to(device)

    return tensors(many.sample())


def _within_reach(space: Space) -> Space:
    """The same space without bounds that stand for none, such as the largest float: no game shows such numbers."""
    if isinstance(space, Dict):
        return Dict({key: _within_reach(part) for key, part in space.items()})
    if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
        return space
    low, high = np.where(space.low < -FAR, -np.inf, space.low), np.where(space.high > FAR, np.inf, space.high)
    return Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type)


def check_samples(data: Any, who: str) -> None:
    """Compare what a data set gives with its contract; ``who`` begins the sentence.

    Raises:
        PluginError: the first thing that is wrong.
    """
    if not isinstance(data, DataSet):
        raise PluginError(f"{who} gives {about(data)}; it must be a DataSet")
    real, labels = data.real, data.labels
    if not isinstance(real, Tensor) or real.dim() < 2 or len(real) == 0 or real.device.type != "cpu":
        raise PluginError(f"{who} has real={about(real)}; it must be a tensor (M, ...) on the CPU with M of at least 1")
    if real.dim() == 4 and real.dtype is not torch.uint8:
        raise PluginError(f"{who} has images as {about(real)}; they must be uint8 of (M, C, H, W), from 0 to 255")
    if bool((broken := ~real.flatten(1).isfinite().all(1)).any()):
        raise PluginError(f"{who} has a sample that is not finite: number {int(broken.nonzero()[0])} of {len(real)}")
    if labels is None:
        return
    if not isinstance(labels, Tensor) or (labels.dtype, labels.shape) != (torch.int64, real.shape[:1]):
        raise PluginError(f"{who} has labels as {about(labels)}; they must be int64 of ({len(real)},)")
    if int(labels.min()) < 0:
        raise PluginError(f"{who} has the label {int(labels.min())}; labels are numbered from 0")


def outside(space: Space, value: Any) -> str | None:
    """What is wrong with a batch (n, ...) of values of a space: its first copy that is not inside, or None."""
    if isinstance(space, Dict):
        found = ((key, outside(inner, value[key])) for key, inner in space.items())
        return next((f"{key!r}: {fault}" for key, fault in found if fault), None)
    dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype
    wanted = f"{str(dtype).removeprefix('torch.')} of (n, {', '.join(map(str, space.shape or ()))})"
    if not isinstance(value, Tensor) or value.dtype != dtype or value.shape[1:] != (space.shape or ()):
        return f"is {about(value)}, and {space} asks for {wanted}"
    value = value.detach()
    if value.is_floating_point() and not bool(value.isfinite().all()):
        return f"is not finite in copy {_first(~value.isfinite())}"
    low, high = (torch.as_tensor(bound, device=value.device) for bound in _bounds(space))
    wrong = (value < low) | (value > high)
    if bool(wrong.any()):
        copy = _first(wrong)
        return f"lies outside of {space} in copy {copy}: {value[copy].tolist()!s:.80}"
    return None


def _bounds(space: Space) -> tuple[Any, Any]:
    """The smallest and the largest value, both included."""
    if isinstance(space, Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, MultiBinary):
        return 0, 1
    assert isinstance(space, Box), f"no bounds are known of {space}"
    return space.low, space.high


def _first(wrong: Tensor) -> int:
    return int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.dim() > 1 else int(wrong.nonzero()[0])

"""From a resolved run to its parts: device, threads, env, agent, generator, reward model."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from gymnasium.spaces import Box, Space

from rlgan import config, rundir
from rlgan.contract import (
    check_agent,
    check_generator,
    check_learner,
    check_names,
    check_reward,
    check_reward_model,
    check_rows,
    check_samples,
    observations,
    sample,
)
from rlgan.core import seeding
from rlgan.core.capture import Captured
from rlgan.core.protocols import DataSet, Spaces, mapped
from rlgan.core.vec import VecEnv, called
from rlgan.errors import PluginError, UsageError, guarded
from rlgan.nn.normalise import Normaliser, scaled, scales
from rlgan.nn.torsos import BOARD
from rlgan.registry import Registry
from rlgan.runconfig import Run, plain
from rlgan.simulators.host import HostVecEnv
from rlgan.watchdog import Watchdog

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def build_env(
    run: Run,
    copies: int,
    device: torch.device,
    seed: int,
    barrier: int,
    *,
    render: bool = False,
    evaluation: bool = False,
) -> Any:
    """Make the env of a run with its rows on the device; for an ``evaluation`` that which it plays there."""
    part, c = run.world, run.config
    spec = part.spec
    saved = partial(rundir.last_saved, Path(c.dir))
    if spec.host:
        return HostVecEnv(
            lambda n: called(c.env, "when it was made", spec.factory, part.config, part.argument, n, render),
            copies,
            device,
            groups=c.groups if barrier else 1,
            seed=seed,
            barrier=barrier,
            timeout=c.timeout,
            name=c.env,
            saved=saved,
        )
    watchdog = Watchdog(c.timeout, c.env, saved)
    try:
        with watchdog:
            env = called(c.env, "when it was made", spec.factory, part.config, device, torch.float32)
            if evaluation and hasattr(env, "evaluated"):
                env = called(c.env, "in its evaluated", env.evaluated)
            with seeding.fork(seed, device):
                check_rows(env, copies, device, c.env)
            return VecEnv(env, copies, device, name=c.env, watchdog=watchdog)
    except Exception:
        watchdog.close()
        raise


def build_agent(run: Run, env: Any, device: torch.device) -> Any:
    """Make the agent for the env's spaces, or say who could act there."""
    part, told = run.learner, spaces(run, env)
    check_names(told.observation, run.world.name)
    if run.config.normalise.obs:
        told = replace(told, observation=scaled(told.observation))
    if part.spec.plans and told.model is None:
        having = ", ".join(config.envs_with_a_model(Registry()))
        raise UsageError(
            f"agent={part.name} plans with the env's model, and env={run.world.name} has no model(); "
            f"these have one: {having}"
        )
    reason = part.spec.refuses(told.observation, told.action)
    if reason:
        able = config.agents_that_can(Registry(), told.observation, told.action, told.model is not None)
        others = f"these can act there: {', '.join(able)}" if able else "no installed agent can act there"
        raise UsageError(f"agent={part.name} cannot act in env={run.world.name}: {reason}; {others}")
    c = run.config.normalise
    if getattr(part.config, "rows", False) and ("reward" in run.parts or c.obs or c.reward):
        raise UsageError(
            "agent.rows=true reads rewards in what the env shows, as they are: leave reward= and normalise.* out"
        )
    who = f"agent {part.name}"
    agent = guarded(PluginError, who, "when it was made", part.spec.factory, told, part.config, device)
    check_learner(agent, ("carry", "act"), who)
    if not part.spec.sees_state:
        with seeding.fork(0, device):
            check_agent(agent, (told.observation, told.action), env.num_envs, device, who)
    return agent


def build_reward(run: Run, env: Any, agent: Any, device: torch.device) -> Any:
    """Make the reward model, or None where the env's own reward is learned from."""
    if "reward" not in run.parts:
        return None
    part, told, n, who = run.parts["reward"], spaces(run, env), env.num_envs, f"reward model {run.config.reward}"
    model = guarded(PluginError, who, "when it was made", part.spec.factory, told, part.config, device)
    check_reward_model(model, who)
    obs, no = observations(told.observation, n, device), torch.zeros(n, dtype=torch.bool, device=device)
    row = {"obs": obs, "next_obs": obs, "reward": no.float(), "terminated": no, "truncated": no, "valid": ~no}
    row["action"] = sample(told.action, n, 0, device)
    with seeding.fork(0, device):
        check_reward(model, mapped(lambda value: value[None], row), agent, who)
    return model


def build_data(run: Run) -> DataSet:
    """Load the data set of a generator's run.

    Raises:
        PluginError: it cannot be loaded, or its samples are not sound.
    """
    part, who = run.world, f"data set {run.world.name}"
    arguments = [part.argument] * part.spec.family
    data = guarded(PluginError, who, "when it was loaded", part.spec.factory, part.config, *arguments)
    check_samples(data, who)
    return data


def build_generator(run: Run, data: DataSet, device: torch.device) -> Any:
    """Make the generator for the data set."""
    part, who = run.learner, f"generator {run.learner.name}"
    generator = guarded(PluginError, who, "when it was made", part.spec.factory, data, part.config, device)
    check_learner(generator, ("sample", "log_prob") if data.tokens else ("sample",), who)
    with seeding.fork(0, device):
        check_generator(generator, data, 2, device, who)
    return generator


def spaces(run: Run, env: Any) -> Spaces:
    """What an agent or a reward model is told of the run."""
    observation, action = env.single_observation_space, env.single_action_space
    about = (run.config.steps, env.stack, run.world.name, env.model, env.references, run.learner.argument)
    return Spaces(observation, action, *about, run.config.copies, plain(run.world.config))


def acting(run: Run, agent: Any, env: Any, normaliser: Normaliser | None) -> Callable[..., Any]:
    """The agent's ``act`` in an env: on what its normaliser shows, or on the state where it sees that."""
    if run.learner.spec.sees_state and hasattr(env, "state"):
        return lambda obs, carry, step, explore: agent.act(env.state, carry, step, explore)
    if normaliser is not None:
        return lambda obs, carry, step, explore: agent.act(normaliser(obs), carry, step, explore)
    return agent.act


def build_normaliser(run: Run, env: Any, device: torch.device) -> Normaliser | None:
    """Make what scales observations and rewards, or None where nothing is to be scaled.

    Raises:
        UsageError: there is nothing to scale, or no discount to scale rewards by.
    """
    c, space = run.config.normalise, env.single_observation_space
    if not (c.obs or c.reward):
        return None
    if c.obs and not scales(space):
        raise UsageError(f"normalise.obs scales arrays of floats, and env={run.world.name} shows {space}: leave it out")
    gamma = getattr(run.learner.config, "gamma", None) if c.gamma is None else c.gamma
    if c.reward and gamma is None:
        raise UsageError(f"agent={run.learner.name} has no gamma to scale rewards by: write normalise.gamma=0.99")
    return Normaliser(space if c.obs else None, run.config.copies, device, gamma if c.reward else None, c.clip)


def pick_device(name: str) -> torch.device:
    """Resolve ``auto`` and refuse a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"device={name}: this machine has {count} CUDA devices; write device=cpu or device=auto")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device


def pick_capture(mode: str, device: torch.device) -> Captured:
    """Return what will be done, by a fixed rule: ``auto`` is graphs on CUDA and eager on a CPU.

    On a CPU the compiler's 6 to 30 seconds are lost on runs of minutes, and DQN updates gain nothing from it.
    """
    if mode == "auto":
        return "graph" if device.type == "cuda" else "eager"
    if mode in ("graph", "compile-graph") and device.type != "cuda":
        raise UsageError("capture=graph needs a CUDA device; on a CPU write capture=eager or capture=compile")
    if (
        mode in ("compile", "compile-graph")
        and not shutil.which(os.environ.get("CXX", "g++"))
        and not shutil.which("clang++")
    ):
        raise UsageError("capture=compile needs a C++ compiler (g++ or clang++); install one or write capture=eager")
    if mode == "compile" and device.type == "cuda":
        return "compile-graph"
    return cast(Captured, mode)


def be_deterministic(wanted: bool) -> None:
    """Ask torch for deterministic algorithms on CUDA. Call it before the first matrix product, or it comes too late."""
    # without a workspace of fixed size cuBLAS may take another order of sums, and torch refuses to call it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


def set_threads(asked: int, observation: Space | None) -> int:
    """Generators and images take all cores; for vectors and boards one thread beats the barriers of two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if observation is None:
        threads = cores
    else:
        image = isinstance(observation, Box) and len(observation.shape) == 3 and max(observation.shape[1:]) > BOARD
        threads = cores if image else 1
    threads = asked or threads
    torch.set_num_threads(threads)
    return threads


def settle_processor() -> None:
    """Set what every run on a processor gains from and no result depends on."""
    # moments of dead units decay into denormal numbers, which processors multiply a hundred times slower
    torch.set_flush_denormal(True)
    # glibc gives freed blocks above 128 KiB back to the system and takes a page fault for each 4 KiB of the next one:
    # a third of a NatureCNN update. Blocks of up to 32 MiB, the most it allows, are kept from here on.
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

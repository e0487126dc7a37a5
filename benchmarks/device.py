"""What only a GPU can show, in one file of JSON: python benchmarks/device.py --out device.json [--small]

Runs from a checkout; needs torch, gymnasium and the small packages of rlgan, for the env ``portfolio`` the prices of
universal-portfolios, and for the tests an rlgan that is installed.
Parts: the tests marked ``gpu``; updates of DQN replayed as a CUDA graph against eager ones, bit for bit; a learning
run; the native cart-pole under DQN, and native envs alone, over numbers of copies that double until throughput stops
growing. Each part has its seconds and its peak of memory. The file is written after each part. Exit code 1: a part
failed or is not equal.

On a CPU there are no graphs: the same code compares two eager sides, and says so. ``--small`` is for tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PATHS = [str(ROOT / folder) for folder in ("", "agents", "envs", "plugins", "benchmarks")]
sys.path[:0] = PATHS

import machine
import torch
from device_envs import doubling, env_alone, env_compiled, rate
from gymnasium.spaces import Box, Discrete

from rlgan import assembly, config, session
from rlgan.core import seeding
from rlgan.core.capture import capture
from rlgan.core.protocols import Batch, Spaces
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.discovery import Entry
from rlgan.registry import Registry
from rlgan.report import record
from rlgan.store.tree import encode
from rlgan_agents.dqn import DQN, DQNConfig
from rlgan_envs.cartpole import CartPole, CartPoleConfig


def peak_mb(device: torch.device) -> float:
    """Most device memory since the last reset; on a CPU, the most that the process ever had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- parts ---


def gpu_tests(device: torch.device, small: bool) -> dict[str, Any]:
    """The tests marked ``gpu``, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        words += ["-n", str(min(os.cpu_count() or 1, 12))] if importlib.util.find_spec("xdist") else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])}
        # not the whole suite: other files may need packages that such a machine lacks
        words += [str(path) for path in sorted((ROOT / "tests").glob("*.py")) if "@pytest.mark.gpu" in path.read_text()]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"pytest gave no report: {(done.stdout + done.stderr)[-500:]}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    kinds: dict[str, list[str]] = {"failure": [], "error": [], "skipped": []}
    for case in cases:
        for kind, names in kinds.items():
            if case.find(kind) is not None:
                names.append(f"{case.get('classname')}.{case.get('name')}")
    bad = kinds["failure"] + kinds["error"]
    # without a GPU they are skipped, with one they must run
    idle = device.type == "cuda" and len(kinds["skipped"]) == len(cases)
    passed = len(cases) - len(bad) - len(kinds["skipped"])
    messages = [found.get("message", "")[:300] for case in cases if (found := case.find("failure")) is not None]
    return {
        "ok": not bad and not idle,
        "passed": passed,
        "skipped": len(kinds["skipped"]),
        "failed": bad,
        "messages": messages[:8],
    }


def batches(observation: Box, size: int, count: int, device: torch.device) -> Iterator[Batch]:
    """Random batches that every side draws equally."""
    torch.manual_seed(1)
    image = len(observation.shape) == 3
    for k in range(count):
        shape = (size, *observation.shape)
        obs, following = (
            torch.randint(256, shape, device=device, dtype=torch.uint8) if image else torch.randn(shape, device=device)
            for _ in range(2)
        )
        yield {
            "obs": obs,
            "next_obs": following,
            "action": torch.randint(4, (size,), device=device),
            "reward": torch.randn(size, device=device),
            "discount": torch.full((size,), 0.99, device=device),
            "weight": torch.ones(size, device=device),
            "step": torch.tensor(k, device=device),
        }


def after_updates(space: Box, mode: Any, updates: int, device: torch.device) -> dict[str, torch.Tensor]:
    """All tensors of a DQN after so many updates, and the sum of its metrics."""
    torch.manual_seed(0)
    agent = DQN(Spaces(space, Discrete(4), 10 * updates), DQNConfig(lr_end=0.1, double=True), device)
    update, total = capture(agent.update, mode), dict[str, Any]()
    for k, batch in enumerate(batches(space, 32, updates, device), 1):
        for name, value in update(batch).items():
            total[name] = total.get(name, 0) + value.double()
        if k % 10 == 0:
            agent.sync()
    tensors: dict[str, torch.Tensor] = {}
    encode({"agent": agent.state_dict(), "metrics": total}, tensors)
    return {name: value.detach().clone() for name, value in tensors.items()}


def captured_is_eager(device: torch.device, small: bool) -> dict[str, Any]:
    """Bitwise equality of all weights, moments and metrics, for vectors and for images."""
    mode = "graph" if device.type == "cuda" else "eager"
    updates = 20 if small else 1_000
    result: dict[str, Any] = {"modes": ["eager", mode], "updates": updates, "ok": True}
    for name, space in (("vector", Box(-1, 1, (4,))), ("image", Box(0, 255, (4, 84, 84), "uint8"))):
        eager, other = (after_updates(space, m, updates, device) for m in ("eager", mode))
        unequal = [key for key in eager if not torch.equal(eager[key], other[key])]
        moved = sum(bool(value.any()) for key, value in eager.items() if "optimiser/first" in key)
        result[name] = {"tensors": len(eager), "unequal": unequal, "moved": moved}
        result["ok"] &= not unequal and moved > 0
    return result


def env_and_agent(device: torch.device, small: bool) -> dict[str, Any]:
    """Cart-pole under DQN: act, step, write the ring, draw, one update of 512 windows for each step of all copies."""
    seconds, first, last = (0.2, 16, 64) if small else (1.0, 1 << 12, 1 << 22)
    mode = "graph" if device.type == "cuda" else "eager"

    def at(copies: int) -> dict[str, Any]:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seeding.seed_all(0)
        env = VecEnv(CartPole(CartPoleConfig(), device), copies, device)
        settings = DQNConfig(
            batch_size=512, capacity=max(16 * copies, 512), learning_starts=2 * copies, train_every=copies
        )
        agent = DQN(Spaces(env.single_observation_space, env.single_action_space, 10**9), settings, device)
        phase = agent.phases()[0]
        stream = Stream(env, agent.act, agent.carry)
        stream.begin()
        source, update = make_source(phase, stream), capture(phase.update, mode)

        def iteration() -> None:
            batch = source.next()
            if batch is not None:
                update(batch)

        for _ in range(8):
            iteration()
        per_s = rate(iteration, seconds, device)
        return {"steps_per_s": per_s * copies, "updates_per_s": per_s, "peak_memory_mb": peak_mb(device)}

    return {"ok": True, "capture": mode, "points": doubling(first, last, at)}


def learning(device: torch.device, small: bool) -> dict[str, Any]:
    """`rlgan run agent=dqn env=cartpole`, by its functions: a checkout that is not installed has no entry points."""
    entries = [("dqn", "agents", "rlgan_agents.dqn"), ("cartpole", "envs", "rlgan_envs.cartpole")]
    registry = Registry([Entry(name, kind, "checkout", "0", module) for name, kind, module in entries])
    words = ["agent=dqn", "env=cartpole", f"device={device.type}"]
    words += ["steps=600", "agent.learning_starts=100", "eval.episodes=2"] if small else ["eval.episodes=100"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        code = session.train(config.resolve_one([*words, f"dir={folder}/run"], registry))
        wall = time.perf_counter() - began
        path = Path(folder) / "run" / "metrics.jsonl"
        final, rows = record.last_evaluation(path, "return_mean"), record.read(path)
    trained = [row for row in rows if row["kind"] == "train"]
    curve = [[row["step"], row["return_mean"]] for row in trained]
    reached = final["return_mean"] >= 475 or small
    return {
        "ok": code == 0 and reached,
        "words": words,
        "return_mean": final["return_mean"],
        "episodes": final["episodes"],
        "wall_s": wall,
        "steps_per_s": trained[-1]["step"] / wall,
        "curve": curve,
    }


PARTS = {
    part.__name__: part for part in (gpu_tests, captured_is_eager, learning, env_and_agent, env_alone, env_compiled)
}


def describe(device: torch.device) -> dict[str, Any]:
    found = {**machine.describe(), "device": device.type, "cuda": torch.version.cuda}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_mb": properties.total_memory / 2**20}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--small", action="store_true", help="sizes for a test, also on a CPU")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; default all")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    device = assembly.pick_device(args.device)
    torch.set_num_threads(1)
    if device.type == "cuda":
        assembly.be_deterministic(True)
    result: dict[str, Any] = {"machine": describe(device), "small": args.small, "date": time.strftime("%Y-%m-%d")}
    for name in args.parts or PARTS:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        try:
            part = PARTS[name](device, args.small)
        except Exception as error:  # the other parts are still worth having
            part = {
                "ok": False,
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc()[-2000:],
            }
        result[name] = {**part, "seconds": time.perf_counter() - began, "peak_memory_mb": peak_mb(device)}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {'ok' if part['ok'] else 'FAILED'} in {result[name]['seconds']:.1f} s", flush=True)
    return 0 if all(result[name]["ok"] for name in args.parts or PARTS) else 1


if __name__ == "__main__":
    sys.exit(main())

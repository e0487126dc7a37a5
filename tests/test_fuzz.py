"""Mutated words, config files and checkpoints: whatever comes in, a sentence goes out, and nothing of it is executed.

The ordinary suite runs a few hundred cases, ``pytest -m slow tests/test_fuzz.py`` runs 20,000.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlgan import assembly, config
from rlgan.cli import main as cli
from rlgan.errors import RlganError
from rlgan.overrides import expand
from rlgan.registry import Registry
from rlgan.report import curve
from rlgan.store.segments import _HEADER, _MAGIC

SLOW = [pytest.mark.slow, pytest.mark.timeout(0)]
CANARY = "rlgan_fuzz_canary"
"""A module and a file: neither may ever come to be."""
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class", "socket.")
LIMIT_S = 60
"""A case that takes longer hangs."""

watched: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if watched is not None and (
        event.startswith(FORBIDDEN) or (CANARY in str(arguments[:1])[:200] and event == "import")
    ):
        watched.append(f"{event} {arguments!r:.100}")


sys.addaudithook(_audit)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What was executed; in an empty directory that holds a module which must not be imported."""
    global watched
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{CANARY}.py").write_text(f"open({str(tmp_path / CANARY)!r}, 'w')\n")
    watched = []
    yield watched
    done, watched = watched, None
    assert done == []
    assert not (tmp_path / CANARY).exists()


# --- mutations ---

PAYLOADS = [
    "__import__('os').system('touch CANARY')",
    "$(touch CANARY)",
    "!!python/object/apply:os.system ['touch CANARY']",
    "!!python/name:os.system",
    "!!python/module:CANARY",
    "CANARY:X",
    "gym:CANARY",
    "../../CANARY",
    "c\nposix\nsystem\n(S'touch CANARY'\ntR.",
    "{{7*7}}%s%n{0}",
    "\udcff",
    "\x00",
    "9" * 5000,
    "-1",
    "1e400",
    "nan",
    "[" * 3000,
    "&a [*a]",
    "{a: &a {b: *a}}",
    "2001-99-99",
    "!!timestamp x",
    "!!bool x",
    "!!int x",
    "!!binary x",
    "!!set {a, b}",
    "? [a]\n: b",
    "0..9999999999999999999",
    "x" * 300,
    "٣",
    "",
]
PAYLOADS = [text.replace("CANARY", CANARY) for text in PAYLOADS]
CHARS = "=,.'\"[]{}:@#&*!|>%-~ \n\t\\0129aeZ\x00é\u2028"


def mutated_text(r: random.Random, text: str) -> str:
    for _ in range(r.choice([1, 1, 2, 4])):
        at, size = r.randrange(len(text) + 1), r.choice([0, 1, 1, 3, 10])
        new = r.choice([r.choice(CHARS), r.choice(CHARS) * 3, r.choice(PAYLOADS), "", text[at : at + 20] * 2])
        text = text[:at] + new + text[at + size :]
    return text


def mutated_bytes(r: random.Random, data: bytes) -> bytes:
    for _ in range(r.choice([1, 1, 3, 20])):
        at = r.randrange(len(data) + 1)
        kind = r.randrange(5)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + r.randbytes(r.choice([1, 8, 100])) + data[at:]
        elif kind == 2:
            data = data[:at] + data[at + r.choice([1, 4, 64]) :]
        elif data:
            at %= len(data)
            data = (
                data[:at] + bytes([data[at] ^ 1 << r.randrange(8) if kind == 3 else r.randrange(256)]) + data[at + 1 :]
            )
    return data


VALUES: list[Any] = [None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, "", "x"]
VALUES += [[], {}, [1], {"a": 1}, {"$float": "nan"}, {"$float": "x"}, {"$tuple": [1]}, {"$tensor": "agent/q/0.weight"}]
VALUES += [{"$tensor": "none"}, {"$0": 1}, {"$x": 1}, [[[[]]]], PAYLOADS[0], f"../{CANARY}", "cuda", "graph"]


def nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from nodes(value)


def mutated_tree(r: random.Random, tree: Any) -> Any:
    tree = json.loads(json.dumps(tree))
    for _ in range(r.choice([1, 1, 1, 2, 5])):
        if not (found := list(nodes(tree))):
            break
        box, key = r.choice(found)
        other, where = r.choice(found)
        kind = r.randrange(8)
        if kind == 0:
            del box[key]
        elif kind == 1 and isinstance(box, dict):
            box[r.choice(["x", f"{key}x", "$1", "$tensor", ""])] = box.pop(key)
        elif kind == 2:
            box[key] = json.loads(json.dumps(other[where]))
        elif kind == 3 and type(box[key]) is int:
            box[key] += r.choice([-1, 1, -1000, 1000, 2**40])
        else:
            box[key] = copy.deepcopy(r.choice(VALUES))
    return tree


# --- the oracle ---


class Hang(BaseException):
    """A case did not end in time."""


def _alarm(number: int, frame: Any) -> None:
    raise Hang


def outcome(call: Callable[[], Any]) -> str:
    """``ok``, the kind of a user's error that is one sentence, or the end of a traceback, which is a finding."""
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(LIMIT_S)
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
            call()
    except RlganError as error:
        lines = str(error).splitlines()
        return (
            type(error).__name__ if str(error).strip() and len(str(error)) < 20_000 else f"no sentence: {lines!r:.200}"
        )
    except (Exception, Hang) as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in place if "rlgan" in frame.filename
        ]
        return f"TRACEBACK {type(error).__name__}: {str(error)[:90]!r} in {' < '.join(reversed(ours[-3:]))}"
    finally:
        signal.alarm(0)
    return "TRACEBACK on stderr" if "Traceback" in said.getvalue() else "ok"


def judge(outcomes: Counter[str], findings: dict[str, Any]) -> None:
    print(dict(outcomes))
    assert not findings, "\n".join(f"{what}\n    case {case!r:.600}" for what, case in findings.items())
    assert outcomes["ok"] and sum(outcomes.values()) > outcomes["ok"], "mutations both harmless and harmful"


def run_cases(count: int, seed: int, case: Callable[[random.Random], tuple[Any, Callable[[], Any]]]) -> None:
    outcomes: Counter[str] = Counter()
    findings: dict[str, Any] = {}
    for i in range(count):
        what, call = case(random.Random(f"{seed}-{i}"))
        result = outcome(call)
        if result.startswith(("TRACEBACK", "no sentence")):
            findings.setdefault(result, (i, what))
        outcomes[result.partition(":")[0]] += 1
    judge(outcomes, findings)


# --- words ---

WORDS = [
    "agent=dqn",
    "env=cartpole",
    "env=atari:pong",
    "env=gym:CartPole-v1",
    "seed=0,1,2",
    "seed=0..3",
    "steps=1e6",
    "steps=10_000",
    "agent.lr=1e-4",
    "agent.hidden=[64,64]",
    "agent.hidden=[8],[4]",
    "trackers=[tensorboard]",
    "device=cpu",
    "dir='a,b'",
    "agent.double=yes",
    "agent.loss=mse",
    "preset=none",
    "timeout=2.5",
    "checkpoint.every=5k",
    "@config.yaml",
]


def words_case(r: random.Random) -> tuple[Any, Callable[[], Any]]:
    words = r.sample(WORDS, r.randrange(1, 6))
    words += [word for word in ("agent=dqn", "env=cartpole") if r.random() < 0.7]
    for _ in range(r.choice([0, 1, 1, 2])):
        at = r.randrange(len(words))
        words[at] = mutated_text(r, words[at])
    if len(expand(words)[0]) > 20:
        words = words[:1]
    command = r.choice([["run", "--dry-run"], ["run", "--dry-run"], ["run", "--help"], ["eval", "x"], ["list"]])
    return words, lambda: strictly([*command, *words])


def strictly(arguments: list[str]) -> None:
    """The program as it is called; a user's error is raised instead of printed, to be told from a traceback."""
    os.environ["RLGAN_STRICT"] = "1"
    try:
        cli.main(arguments)
    finally:
        del os.environ["RLGAN_STRICT"]


@pytest.mark.parametrize("count", [200, pytest.param(7_000, marks=SLOW)])
def test_words(watch: list[str], count: int) -> None:
    Path("config.yaml").write_text("agent: dqn\nenv: cartpole\nsteps: 5\n")
    run_cases(count, 1, words_case)


# --- config files ---


def config_case(texts: list[str]) -> Callable[[random.Random], tuple[Any, Callable[[], Any]]]:
    def case(r: random.Random) -> tuple[Any, Callable[[], Any]]:
        text = r.choice(texts)
        kind = r.randrange(4)
        if kind == 0:
            data = mutated_bytes(r, text.encode())
        elif kind == 1:
            data = yaml.safe_dump(mutated_tree(r, yaml.safe_load(text))).encode()
        else:
            lines = text.splitlines()
            at = r.randrange(len(lines))
            key = lines[at].partition(":")[0]
            lines[at] = f"{key}: {r.choice(PAYLOADS)}" if kind == 2 else mutated_text(r, lines[at])
            data = "\n".join(lines).encode(errors="surrogatepass")
        Path("config.yaml").write_bytes(data)
        if r.random() < 0.5:
            return data, lambda: strictly(["run", "@config.yaml", "--dry-run"])
        return data, lambda: config.load_file(Path("config.yaml"), Registry())

    return case


@pytest.mark.parametrize("count", [200, pytest.param(6_000, marks=SLOW)])
def test_config_files(watch: list[str], count: int) -> None:
    asked = (["env=cartpole"], ["env=breakout"], ["env=gym:X-v0", "trackers=[tensorboard]"])
    runs = [config.resolve_one(["agent=dqn", *words], Registry()) for words in asked]
    run_cases(count, 2, config_case([yaml.safe_dump(run.to_dict(), sort_keys=False) for run in runs]))


# --- checkpoints ---

TINY = "agent=dqn env=cartpole preset=none steps=80 copies=2 env.max_steps=8 agent.hidden=[4] agent.learning_starts=16"
TINY += " agent.batch_size=4 agent.capacity=64 eval.episodes=1 record.every=20 checkpoint.every=20 checkpoint.keep=9"


@pytest.fixture
def tiny(watch: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run with two checkpoints from before its end. Nothing is synced or drawn here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(curve, "draw", lambda *arguments: None)
    from rlgan import session

    # flushing denormal numbers would outlive the test, and Hypothesis refuses to draw floats then
    monkeypatch.setattr(assembly, "settle_processor", lambda: None)
    session.train(config.resolve_one([*TINY.split(), "dir=base"], Registry()))
    steps = sorted((tmp_path / "base/checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))
    assert len(steps) > 3
    for path in [steps[0], *steps[3:]]:
        shutil.rmtree(path)
    return tmp_path / "base"


def sealed(path: Path, change: Callable[[dict[str, Any]], Any] = lambda body: None) -> None:
    """Give a manifest the hashes that fit, as a forger would, after a change of its body."""
    body = json.loads((path / "manifest.json").read_text())
    body.pop("sha256", None)
    for name, entry in body.get("files", {}).items():
        data = (path / name).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    body = change(body) or body
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    text = json.dumps({**body, "sha256": seal}) if isinstance(body, dict) else json.dumps(body)
    (path / "manifest.json").write_text(text)


def forge_manifest(r: random.Random, path: Path) -> None:
    sealed(path, lambda body: mutated_tree(r, body))


def forge_info(r: random.Random, path: Path) -> None:
    sealed(path, lambda body: {**body, "info": mutated_tree(r, body["info"])})


def forge_state(r: random.Random, path: Path) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(mutated_tree(r, state)))
    sealed(path)


def forge_tensors(r: random.Random, path: Path) -> None:
    file = path / "tensors.safetensors"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if r.random() < 0.6:
        header = json.dumps(mutated_tree(r, json.loads(data[8 : 8 + size]))).encode()
        data = len(header).to_bytes(8, "little") + header + data[8 + size :]
    else:
        data = mutated_bytes(r, data)
    file.write_bytes(data)
    sealed(path)


def forge_shapes(r: random.Random, path: Path) -> None:
    """Well-formed tensors of another shape, dtype or content."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "tensors.safetensors")
    for name in r.sample(sorted(tensors), r.choice([1, 1, 2, 5])):
        t = tensors[name]
        kind = r.randrange(5)
        if kind == 0:
            t = torch.zeros([*t.shape, 2], dtype=t.dtype)
        elif kind == 1:
            t = t.reshape(-1)[:1].clone()
        elif kind == 2:
            t = t.to(r.choice([torch.uint8, torch.float64, torch.bool, torch.bfloat16]))
        elif kind == 3 and t.is_floating_point():
            t = torch.full_like(t, r.choice([float("nan"), float("inf"), 1e30]))
        elif not t.is_floating_point():
            t = torch.full_like(t, r.choice([0, 1]) if t.dtype == torch.bool else r.choice([0, 77]))
        tensors[name] = t.contiguous()
    save_file(tensors, path / "tensors.safetensors")
    sealed(path)


def forge_segment(r: random.Random, path: Path) -> None:
    body = json.loads((path / "manifest.json").read_text())
    ref = r.choice(body["segments"])
    folder = path.parent / "segments"
    data = (folder / ref["file"]).read_bytes()
    _, version, size = _HEADER.unpack(data[: _HEADER.size])
    rest = data[_HEADER.size :]
    if r.random() < 0.6:
        header = json.dumps(mutated_tree(r, json.loads(rest[:size]))).encode()
        data = _HEADER.pack(_MAGIC, r.choice([version, version, 0, 9]), len(header)) + header + rest[size:]
    else:
        data = mutated_bytes(r, data)
    name = hashlib.sha256(data).hexdigest()
    file = re.sub(r"[0-9a-f]{64}", name, ref["file"])
    (folder / file).write_bytes(data)

    def change(body: dict[str, Any]) -> None:
        for other in body["segments"]:
            if other == ref:
                other.update(file=file, sha256=name, bytes=len(data))
        r.random() < 0.1 and r.shuffle(body["segments"])
        r.random() < 0.1 and body["segments"].pop()

    sealed(path, change)


def damage_bytes(r: random.Random, path: Path) -> None:
    file = r.choice([file for file in path.parent.rglob("*") if file.is_file()])
    file.write_bytes(mutated_bytes(r, file.read_bytes()))


def swap_files(r: random.Random, path: Path) -> None:
    other = r.choice([p for p in path.parent.glob("step_*") if p != path])
    name = r.choice(["manifest.json", "state.json", "tensors.safetensors"])
    wrong = r.choice([name, name, "state.json", "tensors.safetensors"])
    (path / name).write_bytes((other / wrong).read_bytes())
    if r.random() < 0.7:
        with contextlib.suppress(ValueError):
            sealed(path)


def replace_files(r: random.Random, path: Path) -> None:
    file = r.choice([file for file in path.parent.rglob("*") if file.is_file()])
    file.unlink()
    kind = r.randrange(4)
    if kind == 0:
        file.mkdir()
    elif kind == 1:
        file.symlink_to("/etc/passwd")
    elif kind == 2:
        os.mkfifo(file)


def damage_record(r: random.Random, path: Path) -> None:
    file = path.parent.parent / r.choice(["metrics.jsonl", "versions.json", "log.txt"])
    file.write_bytes(mutated_bytes(r, file.read_bytes()))


FORGERIES = [forge_state, forge_info, forge_shapes, forge_tensors, forge_segment, forge_manifest]
FORGERIES += [damage_bytes, swap_files, replace_files, damage_record]


def checkpoint_case(base: Path) -> Callable[[random.Random], tuple[Any, Callable[[], Any]]]:
    from rlgan import session

    folder = base.with_name("run")

    def case(r: random.Random) -> tuple[Any, Callable[[], Any]]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        forge = r.choice([*FORGERIES, forge_state, forge_state])
        paths = sorted((folder / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))
        forge(r, paths[-1])
        if r.random() < 0.8:
            shutil.rmtree(paths[0])
        command = session.resume if r.random() < 0.8 else lambda folder: session.evaluate(folder, 1, None, 0)
        return forge.__name__, lambda: command(folder)

    return case


BLOCKS = [pytest.param(1_000, seed, marks=SLOW, id=f"block{seed}") for seed in range(1, 8)]


@pytest.mark.parametrize(("count", "seed"), [pytest.param(60, 0, id="few"), *BLOCKS])
def test_checkpoints(tiny: Path, count: int, seed: int) -> None:
    run_cases(count, 3 + seed, checkpoint_case(tiny))


def edit(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for key in parents:
        tree = tree[key]
    tree[last] = value


STATES = {
    "tree/source/ring/written": ([10**6], r"write heads \[1000000\] after \d+ rows"),
    "tree/source/credit": (10**12, "owes 1000000000000 updates at a boundary"),
    "tree/stream/rows": (-4, "its rows is -4 and must be a whole number"),
    "tree/target": (10**15, "beyond the end of the run"),
    "tree/phase": (1, "it is in phase 1 of 1"),
    "tree/marks/record": ("x", "its mark 'record' is 'x'"),
    "tree/sums": ({"loss": "x"}, "its sum of 'loss' is not a number"),
}
INFOS = {
    "info/threads": (-1, "its threads is -1"),
    "info/capture": ("x", "its capture is 'x'"),
    "info/versions": ({"$1": "2"}, "its versions is {1: '2'}"),
    "info/record_length": ("1", "its record_length is '1'"),
}


@pytest.mark.parametrize("where", [*STATES, *INFOS])
def test_a_forged_number_is_named(tiny: Path, where: str) -> None:
    """The sentences for what the fuzzing found to end in a traceback, or in training on left-over memory."""
    from rlgan import session

    path = max((tiny / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))
    shutil.rmtree(min((tiny / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:])))
    value, sentence = (STATES | INFOS)[where]
    if where in STATES:
        state = json.loads((path / "state.json").read_text())
        edit(state, where, value)
        (path / "state.json").write_text(json.dumps(state))
        sealed(path)
    else:
        sealed(path, lambda body: edit(body, where, value))
    with pytest.raises(RlganError, match=sentence):
        session.resume(tiny)


def test_a_replay_without_its_rows_is_refused(tiny: Path) -> None:
    from rlgan import session

    for path in (tiny / "checkpoints").glob("step_*"):
        sealed(path, lambda body: body.update(segments=body["segments"][:-1]))
    with pytest.raises(RlganError, match=r"its segments hold the replay up to row \d+ of \d+"):
        session.resume(tiny)

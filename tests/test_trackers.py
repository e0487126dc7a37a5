"""Trackers can neither stop nor slow a run; TensorBoard's events read back."""

import sys
import threading
import time

import pytest

from rlgan import NoConfig, TrackerSpec
from rlgan.report import trackers
from rlgan.report.trackers import Trackers

ROW = {"kind": "train", "step": 100, "loss": 0.5, "time": {"wall": 1.0}}


class Notes:
    """Writes down what it is told."""

    def __init__(self):
        self.calls = []

    def run_start(self, info):
        self.calls.append(("run_start", info))

    def metrics(self, row):
        self.calls.append(("metrics", row))

    def checkpoint(self, path):
        self.calls.append(("checkpoint", path))

    def run_end(self, summary):
        self.calls.append(("run_end", summary))


class Hangs:
    def __init__(self):
        self.release = threading.Event()
        self.calls = 0

    def metrics(self, row):
        self.calls += 1
        self.release.wait(30)


def make(objects, deadline=5.0):
    warnings = []
    return Trackers(objects, deadline, warnings.append), warnings


def test_every_event_arrives_in_order(tmp_path):
    first, second = Notes(), Notes()
    told, warnings = make({"a": first, "b": second})
    told.run_start({"config": {}})
    for step in range(50):
        told.metrics({**ROW, "step": step})
    told.checkpoint(tmp_path)
    told.run_end({"ok": True})
    assert first.calls == second.calls
    assert [name for name, _ in first.calls] == ["run_start", *["metrics"] * 50, "checkpoint", "run_end"]
    assert [row["step"] for _, row in first.calls[1:51]] == list(range(50))
    assert warnings == []
    told.metrics(ROW)
    assert len(first.calls) == 53, "nothing after the end"


def test_a_tracker_needs_no_method():
    told, warnings = make({"bare": object()})
    told.run_start({})
    told.metrics(ROW)
    told.run_end({})
    assert warnings == []


def test_what_a_tracker_changes_stays_with_it():
    class Spoils:
        def metrics(self, row):
            row["time"]["wall"] = -1
            row.clear()

    notes, row = Notes(), {"kind": "train", "time": {"wall": 1.0}}
    told, _ = make({"spoils": Spoils(), "notes": notes})
    told.metrics(row)
    told.run_end({})
    assert row == notes.calls[0][1] == {"kind": "train", "time": {"wall": 1.0}}


@pytest.mark.parametrize(
    ("error", "text"), [(ValueError("no disk"), "ValueError: no disk"), (SystemExit(3), "SystemExit: 3")]
)
def test_one_that_raises_is_switched_off_alone(error, text):
    class Raises:
        calls = 0

        def metrics(self, row):
            Raises.calls += 1
            raise error

    notes = Notes()
    told, warnings = make({"bad": Raises(), "good": notes})
    for _ in range(5):
        told.metrics(ROW)
    told.run_end({})
    assert warnings == [f"warning: tracker 'bad' is switched off for this run: metrics raised {text}"]
    assert Raises.calls == 1
    assert len(notes.calls) == 6


def test_one_that_hangs_costs_the_run_nothing():
    hangs, notes = Hangs(), Notes()
    told, warnings = make({"slow": hangs, "good": notes}, deadline=0.2)
    began = time.monotonic()
    for _ in range(100):
        told.metrics(ROW)
    assert time.monotonic() - began < 0.15
    time.sleep(0.3)
    told.metrics(ROW)
    assert warnings == ["warning: tracker 'slow' is switched off for this run: metrics took longer than 0.2 s"]
    began = time.monotonic()
    told.run_end({})
    assert time.monotonic() - began < 0.15, "one that is off is not waited for"
    assert hangs.calls == 1 and len(notes.calls) == 102 and len(warnings) == 1
    hangs.release.set()


def test_the_end_waits_for_all_at_most_the_deadline():
    told, warnings = make({"a": Hangs(), "b": Hangs()}, deadline=0.3)
    told.metrics(ROW)
    began = time.monotonic()
    told.run_end({})
    assert 0.25 < time.monotonic() - began < 1.0
    text = "is switched off for this run: it was not done within 0.3 s of the end"
    assert warnings == [f"warning: tracker '{name}' {text}" for name in "ab"]


def test_one_that_falls_behind_is_switched_off(monkeypatch):
    monkeypatch.setattr(trackers, "BACKLOG", 5)
    hangs = Hangs()
    told, warnings = make({"slow": hangs})
    for _ in range(20):
        told.metrics(ROW)
    assert warnings == ["warning: tracker 'slow' is switched off for this run: it is 5 calls behind"]
    hangs.release.set()


def test_a_hanging_tracker_does_not_keep_the_process_alive():
    import subprocess

    code = (
        "import time; from rlgan.report.trackers import Trackers\n"
        "class Hangs:\n def metrics(self, row): time.sleep(60)\n"
        "t = Trackers({'h': Hangs()}, 0.1); t.metrics({}); t.run_end({}); print('done')"
    )
    began = time.monotonic()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (found.returncode, found.stdout) == (0, "done\n") and time.monotonic() - began < 30
    assert (
        found.stderr == "warning: tracker 'h' is switched off for this run: it was not done within 0.1 s of the end\n"
    )


# --- TensorBoard ---


@pytest.fixture
def board():
    pytest.importorskip("tensorboardX")
    from rlgan_trackers import tensorboard

    return tensorboard


def events(folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return found


def scalars(found, tag):
    return [(event.step, round(event.value, 4)) for event in found.Scalars(tag)]


def test_the_spec(board):
    (spec,) = board.rlgan_specs()
    assert isinstance(spec, TrackerSpec)
    assert (spec.name, spec.config, spec.extra) == ("tensorboard", NoConfig, "trackers")


def test_tensorboard_reads_every_number(board, tmp_path):
    told, warnings = make({"tensorboard": board.TensorBoard(NoConfig(), tmp_path)}, deadline=30.0)
    told.run_start({"config": {"agent": "dqn"}, "dir": str(tmp_path)})
    for step in (100, 200):
        row = {"kind": "train", "phase": "learn", "step": step, "return_mean": None, "loss": step / 8}
        told.metrics({**row, "episodes": 2, "time": {"wall": step / 10, "steps_per_s": 10.0}})
    told.metrics({"kind": "eval", "step": 200, "return_mean": 9.5, "returns": [9.0, 10.0], "time": {"seconds": 2.0}})
    told.checkpoint(tmp_path / "step_200")
    told.run_end({})
    assert warnings == []
    found = events(tmp_path)
    assert sorted(found.Tags()["scalars"]) == [
        "eval/return_mean",
        "eval_time/seconds",
        "time/steps_per_s",
        "time/wall",
        "train/episodes",
        "train/loss",
    ]
    assert scalars(found, "train/loss") == [(100, 12.5), (200, 25.0)]
    assert scalars(found, "eval/return_mean") == [(200, 9.5)]
    (text,) = found.Tensors("config/text_summary")
    assert b'"agent": "dqn"' in text.tensor_proto.string_val[0]


def test_tensorboard_after_a_resume_has_each_step_once(board, tmp_path):
    for start, steps in ((0, (100, 200, 300)), (200, (300, 400))):
        told, warnings = make({"tensorboard": board.TensorBoard(NoConfig(), tmp_path)}, deadline=30.0)
        told.run_start({"config": {}, "step": start})
        for step in steps:
            told.metrics({"kind": "train", "step": step, "loss": step + start / 1000, "time": {}})
        told.run_end({})
        assert warnings == []
        time.sleep(1.1)  # event files are named, and read, in order of the second they were made
    assert scalars(events(tmp_path), "train/loss") == [(100, 100.0), (200, 200.0), (300, 300.2), (400, 400.2)]

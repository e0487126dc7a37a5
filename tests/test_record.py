"""The record, the live line on a terminal and in a pipe, and the learning curve."""

import errno
import io
import json
import math
import os
import pty
import re
import select
import termios
from pathlib import Path

import numpy as np
import pytest

from rlgan.errors import RlganError, UsageError
from rlgan.report import curve, record
from rlgan.report.record import LiveLine, Record, duration, prepare_directory, read
from rlgan.specs import Score

SPENT = {"wall": 60.0, "steps_per_s": 2500.4, "env_share": 0.22, "learner_share": 0.7, "memory_mb": 1228.8}


def train(step, value=12.34, **more):
    return {"kind": "train", "step": step, "episodes": 3, "return_mean": value, "time": SPENT, **more}


def evaluated(step, returns):
    mean = float(np.mean(returns))
    row = {"kind": "eval", "step": step, "return_mean": mean, "return_std": float(np.std(returns)), "return_iqm": mean}
    return {**row, "length_mean": 9.0, "episodes": len(returns), "returns": returns, "time": {"wall": 61.0}}


# --- the file ---


def test_time_goes_last_and_every_line_is_strict_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = Record(path)
    log.write({"time": {"wall": 1.5}, "kind": "train", "loss": math.nan, "q": [math.inf, -math.inf], "none": None})
    assert path.read_text() == ('{"kind":"train","loss":"nan","q":["inf","-inf"],"none":null,"time":{"wall":1.5}}\n')
    assert log.length == path.stat().st_size == 81
    assert [float(x) for x in read(path)[0]["q"]] == [math.inf, -math.inf]


def test_a_resumed_record_equals_an_uninterrupted_one(tmp_path):
    whole, cut = Record(tmp_path / "a"), Record(tmp_path / "b")
    for step in range(5):
        whole.write({"step": step})
        cut.write({"step": step})
        if step == 2:
            length = cut.length
    with (tmp_path / "b").open("ab") as file:
        file.write(b'{"torn')
    resumed = Record(tmp_path / "b", length)
    assert resumed.length == length
    for step in (3, 4):
        resumed.write({"step": step})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert resumed.length == whole.length


def test_a_record_that_cannot_be_opened(tmp_path):
    Record(tmp_path / "m").write({"step": 1})
    with pytest.raises(UsageError, match=r"m is already there: resume that run, or write another dir="):
        Record(tmp_path / "m")
    with pytest.raises(UsageError, match="m has 11 bytes, but the checkpoint was made when it had 12: it was changed"):
        Record(tmp_path / "m", 12)
    with pytest.raises(UsageError, match=r"gone cannot be opened: No such file"):
        Record(tmp_path / "gone", 0)


def test_a_torn_last_line_is_left_out_but_no_other(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b'{"step":1}\n{"step":2}\n{"step":')
    assert read(path) == [{"step": 1}, {"step": 2}]
    path.write_bytes(b'{"step":1}\n{"ste\n{"step":3}\n')
    with pytest.raises(UsageError, match=r"line 2 of .*m is not a JSON object: the record is damaged"):
        read(path)
    path.write_bytes(b"[1]\n")
    with pytest.raises(UsageError, match="line 1 of"):
        read(path)
    with pytest.raises(UsageError, match="none cannot be read: No such file"):
        read(tmp_path / "none")


def test_a_full_disk(tmp_path):
    log = Record(tmp_path / "m")
    log._file.close()
    log._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(
        RlganError, match=r"m could not be written \(No space left on device\); the checkpoints are kept"
    ):
        log.write({"step": 1})
    log.close()


def test_short_writes_are_completed(tmp_path):
    class Short:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[:3])

    log = Record(tmp_path / "m")
    log._file = Short(log._file)
    log.write({"step": 12345})
    assert read(tmp_path / "m") == [{"step": 12345}]
    assert log._length == 15


# --- the directory ---


def test_a_run_directory_is_made(tmp_path):
    prepare_directory(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch, code):
    def fail(**_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(record.tempfile, "TemporaryFile", fail)
    sentence = f"the run directory {tmp_path} cannot be written: {os.strerror(code)}; write dir=PATH with a folder"
    with pytest.raises(UsageError, match=re.escape(sentence)):
        prepare_directory(tmp_path)


def test_a_directory_where_a_file_is(tmp_path):
    (tmp_path / "f").write_text("")
    for path, reason in (("f", "File exists"), ("f/run", "Not a directory")):
        with pytest.raises(UsageError, match=f"the run directory .*{path} cannot be written: {reason}"):
            prepare_directory(tmp_path / path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        prepare_directory(tmp_path)


# --- the live line ---


def shown(monkeypatch, columns, rows, encoding="utf-8", **environment):
    """What reaches a terminal of so many columns."""
    for name in ("CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, columns))
    with open(child, "w", encoding=encoding) as stream:
        line = LiveLine(10_000, stream)
        for row in rows:
            line.show(row)
        line.close()
        line.close()
        got = b""
        while select.select([parent], [], [], 0.3)[0]:  # a terminal hands over what was written in pieces
            got += os.read(parent, 10_000)
        return got.decode(encoding).replace("\r\n", "\n")


REST = "  return 12.34  2,500 steps/s  ETA 2s  env 22% learner 70%  1.2 GB"
FULL, PLAIN = f" 40% 4k/10k{REST}", f" 40% 4,000/10,000 steps{REST}"


def test_one_line_on_a_terminal(monkeypatch):
    text = shown(monkeypatch, 120, [train(4000)])
    assert text == f"\r━━━━━━╌╌╌╌╌╌╌╌╌╌  {FULL}\x1b[K\n"


def test_a_terminal_without_unicode(monkeypatch):
    assert "\r======----------   40% 4k/" in shown(monkeypatch, 120, [train(4000)], encoding="ascii")


@pytest.mark.parametrize(
    ("columns", "line"),
    [(80, FULL), (77, FULL[:-8]), (50, FULL[:48]), (30, FULL[:25]), (15, FULL[:11]), (10, FULL[:9])],
)
def test_a_narrow_terminal_loses_the_least_important(monkeypatch, columns, line):
    text = shown(monkeypatch, columns, [train(4000)])
    assert text == f"\r{line}\x1b[K\n"
    assert len(line) < columns


def test_an_evaluation_stays_above_the_live_line(monkeypatch):
    text = shown(monkeypatch, 100, [train(4000), evaluated(4000, [1.0, 3.0]), train(5000, None)])
    bar, half = "━━━━━━╌╌╌╌╌╌╌╌╌╌  ", "━━━━━━━━╌╌╌╌╌╌╌╌  "
    kept = "evaluation at step 4,000: mean return 2 ± 1, interquartile mean 2, 2 games"
    last = FULL.replace("40% 4k", "50% 5k").replace("12.34", "-")
    assert text == f"\r{bar}{FULL}\x1b[K\r\x1b[K{kept}\n{bar}{FULL}\r{half}{last}\x1b[K\n"


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"CI": "1"}, {"TERM": "dumb"}])
def test_plain_lines_where_nobody_watches(monkeypatch, environment):
    text = shown(monkeypatch, 100, [train(4000), train(5000)], **environment)
    assert text == f"{PLAIN}\n{PLAIN.replace('40% 4', '50% 5')}\n"


def test_plain_lines_in_a_pipe():
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:
        line = LiveLine(10_000, stream)
        line.show(train(4000))
        line.show(evaluated(4000, [2.0, 2.0]))
        line.note("saved")
        line.close()
    text = os.read(reading, 10_000).decode()
    os.close(reading)
    assert text == f"{PLAIN}\nevaluation at step 4,000: mean return 2 ± 0, interquartile mean 2, 2 games\nsaved\n"
    assert "\r" not in text and "\x1b" not in text


def test_a_closed_pipe_does_not_stop_a_run():
    reading, writing = os.pipe()
    os.close(reading)
    stream = io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)
    line = LiveLine(100, stream)
    for step in range(3):
        line.show(train(step))
    line.close()
    stream.close()


def test_a_record_without_times_or_steps():
    stream = io.StringIO()
    LiveLine(0, stream).show({"kind": "train", "step": 5})
    assert stream.getvalue() == "100% 5/1 steps\n"


def test_the_pace_is_smoothed():
    stream = io.StringIO()
    line = LiveLine(10_000, stream)
    for rate in (1000.0, 100.0):
        line.show(train(0, time={"steps_per_s": rate}))
    assert [text.split("  ")[-1] for text in stream.getvalue().splitlines()] == ["ETA 10s", "ETA 37s"]


def test_steps_are_short_on_a_terminal():
    counts = (0, 999, 1000, 412_345, 999_499, 999_600, 9_876_543, 2_000_000_000)
    assert [record.short(n) for n in counts] == ["0", "999", "1k", "412k", "999k", "1M", "9.88M", "2G"]


def test_durations():
    assert [duration(s) for s in (0.4, 59, 185, 7620, 273_600)] == ["0s", "59s", "3m 05s", "2h 07m", "3d 04h"]


# --- the curve ---


def texts(run_dir):
    """All words of the picture, without reading pixels."""
    rows = read(run_dir / "metrics.jsonl")
    lines = {"random": 1.7, "human": 30.5, "far": 400.0, "lowest": -900.0}
    figure = curve._figure(rows, "dqn on breakout", "return_mean", lines)
    axes = figure.axes[0]
    return figure, axes, [t.get_text() for t in [*figure.texts, *axes.texts]]


def a_run(path, n=60):
    log = Record(path / "metrics.jsonl")
    g = np.random.default_rng(0)
    for i in range(1, n + 1):
        log.write(train(i * 1000, None if i < 3 else float(i / 2 + g.normal()), episodes=0 if i < 3 else 5))
        if i % 20 == 0:
            log.write(evaluated(i * 1000, (i / 2 + g.normal(size=20)).tolist()))
    log.close()


def test_the_picture_is_written_whole(tmp_path):
    a_run(tmp_path)
    path = curve.draw(
        tmp_path,
        "dqn on breakout",
        "return_mean",
        [Score("random", 1.7, ""), Score("human", 30.5, ""), Score("best", 31.0, "")],
    )
    assert path == tmp_path / "curve.png"
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82") and len(data) > 20_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curve.png", "metrics.jsonl"]


def test_scores_far_away_are_named_but_do_not_flatten_the_curve(tmp_path):
    a_run(tmp_path)
    figure, axes, words = texts(tmp_path)
    low, high = axes.get_ylim()
    assert -5 < low < 1 and 31 < high < 40
    assert {"random  1.7", "human  30.5", "↑ far  400", "↓ lowest  -900"} <= set(words)
    assert words[0] == "dqn on breakout"
    assert re.fullmatch(
        r"60,000 steps   ·   1m 01s   ·   last evaluation: return mean \S+ \[\S+, \S+\] over 20 games", words[1]
    )
    figure.canvas.draw()
    assert axes.get_legend_handles_labels()[1] == [
        "training games",
        "smoothed",
        "evaluation, 95% interval of the mean",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["0", "10k", "20k"]


def test_names_of_near_lines_do_not_overlap(tmp_path):
    a_run(tmp_path)
    figure = curve._figure(
        read(tmp_path / "metrics.jsonl"), "t", "return_mean", {c * 30: 20 + i / 100 for i, c in enumerate("abcd")}
    )
    heights = sorted(t.xy[1] for t in figure.axes[0].texts)
    assert min(np.diff(heights)) > 0.04 * np.ptp(figure.axes[0].get_ylim())
    assert all(len(t.get_text()) < 30 for t in figure.axes[0].texts)


def test_scores_are_short_numbers():
    scores = (0, -0.25, 22.3, -900, 9_999.4, 9_999.6, -349_600, 437_600, 1_200_000, 9e8)
    assert [curve.brief(score) for score in scores] == [
        *("0", "-0.25", "22.3", "-900", "9999", "10k", "-350k", "438k", "1.2M", "900M")
    ]
    assert [curve.brief(tick, 9) for tick in (0.1 + 0.2, 1_000_050, -7.5e6)] == ["0.3", "1.00005M", "-7.5M"]


@pytest.mark.parametrize(("base", "size"), [(0, 4e5), (0, 1e7), (1e6, 200), (0, 1)])
def test_all_that_is_written_beside_the_curve_is_in_the_picture(base, size):
    rows = [train(i * 1000, base + size * (i / 30 - 1)) for i in range(61)]
    rows.append(evaluated(60_000, [base + size, base + 0.9 * size]))
    lines = {"clairvoyant bound of all": base + 1.05 * size, "far away and up high": base + 900 * size}
    figure = curve._figure(rows, "ppo on inventory-multi", "return_mean", lines)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    written = [axes.yaxis.label, *axes.get_yticklabels(), *axes.texts]
    boxes = [text.get_window_extent() for text in written if text.get_text()]
    assert len(boxes) > 6 and all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert axes.yaxis.get_offset_text().get_text() == ""
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(ticks)) == len(ticks)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"kind": "train", "step": 9, "return_mean": None, "episodes": 0}],
        [train(10, 5.0)],
        [evaluated(10, [5.0])],
        [train(10, "nan"), {"kind": "eval", "step": 10, "return_mean": 1.0, "episodes": 3}],
    ],
    ids=["empty", "no game", "one game", "one evaluation", "not finite"],
)
def test_short_runs_are_drawn_too(tmp_path, rows):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert curve.draw(tmp_path, "short", "return_mean", [Score("random", 1.0, "")]).stat().st_size > 5_000
    figure, _, words = texts(tmp_path)
    drawn = any(isinstance(row["return_mean"], float) for row in rows)
    assert ("nothing to show yet" in words) == (not drawn), figure


def test_the_interval_holds_the_mean_in_95_of_100_cases():
    g = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = curve.interval((g.gamma(4.0, 2.0, 30)).tolist())
        hits += low <= 8.0 <= high
    assert 0.90 <= hits / 200 <= 0.98
    assert curve.interval([3.0, 3.0]) == (3.0, 3.0)
    assert curve.interval([1.0, 5.0]) == curve.interval([1.0, 5.0])


def test_smoothing_keeps_a_constant_and_weighs_games():
    assert np.allclose(curve.smooth(np.full(50, 7.0), np.arange(1.0, 51.0)), 7.0)
    weighed = curve.smooth(np.array([0.0, 10.0]), np.array([1.0, 3.0]))
    k = math.exp(-0.5)
    assert np.allclose(weighed, [30 * k / (1 + 3 * k), 30 / (3 + k)])


def test_matplotlib_is_not_imported_with_the_module():
    import subprocess
    import sys

    code = "import sys, rlgan.report.curve; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0

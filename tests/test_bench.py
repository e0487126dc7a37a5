"""Statistics of a few runs: equal to SciPy's and rliable's numbers, and to what can be worked out by hand; tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml

from rlgan.bench import results, statistics
from rlgan.bench.statistics import bootstrap, difference, iqm, mean, median, optimality_gap, probability_of_improvement
from rlgan.cli.main import main
from rlgan.errors import UsageError

RNG = np.random.default_rng(3)
OURS, THEIRS = RNG.normal(1.0, 2.0, (7, 5)), RNG.normal(0.5, 1.0, (4, 5)).round(1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (4, 1), (10, 1), (7, 5), (10, 26)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(1).normal(size=shape)
    assert iqm(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None), rel=1e-12)


def test_estimates_by_hand() -> None:
    scores = [[0.0, 2.0], [1.0, 4.0], [5.0, 6.0]]
    assert mean(scores) == 3.0
    assert median(scores) == 3.0  # of the means 2 and 4
    assert iqm(scores) == 3.0  # of 1, 2, 4, 5
    assert optimality_gap(scores) == pytest.approx(1 / 6)  # one score lies 1 below 1, the others reach it
    assert optimality_gap(scores, 4.0) == pytest.approx((4 + 2 + 3 + 0 + 0 + 0) / 6)


def test_the_probability_of_improvement_is_mann_whitneys_u() -> None:
    expected = [scipy.stats.mannwhitneyu(OURS[:, e], THEIRS[:, e]).statistic / (7 * 4) for e in range(5)]
    assert probability_of_improvement(OURS, THEIRS) == pytest.approx(np.mean(expected), rel=1e-12)
    assert probability_of_improvement([[1.0], [2.0]], [[1.0], [0.0], [3.0]]) == (0.5 + 1 + 0 + 1 + 1 + 0) / 6


def test_estimates_take_batches() -> None:
    ours, theirs = np.stack([OURS, OURS + 1]), np.stack([THEIRS, THEIRS])
    for estimate in (mean, median, iqm, optimality_gap):
        assert estimate(ours).tolist() == [estimate(OURS), estimate(OURS + 1)]
    both = probability_of_improvement(ours, theirs).tolist()
    assert both == [probability_of_improvement(OURS, THEIRS), probability_of_improvement(OURS + 1, THEIRS)]


def test_runs_are_drawn_within_each_env_and_for_each_env_alone() -> None:
    within = bootstrap(mean, [[0.0, 1.0], [0.0, 1.0]])
    assert (within.value, within.low, within.high) == (0.5, 0.5, 0.5)  # envs are never mixed
    alone = bootstrap(mean, [[0.0, 1.0], [1.0, 0.0]])
    assert (alone.value, alone.low, alone.high) == (0.5, 0.0, 1.0)  # one draw of rows for both would give 0.5 always


def test_intervals_are_scipys() -> None:
    scores = RNG.normal(100.0, 20.0, 10)
    ours = bootstrap(mean, scores[:, None], resamples=50_000)
    rng = np.random.default_rng(5)
    theirs = scipy.stats.bootstrap((scores,), np.mean, n_resamples=50_000, method="percentile", rng=rng)
    spread = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02 * spread)
    again = bootstrap(mean, scores[:, None], resamples=50_000)
    assert ours == again


RLIABLE: dict[str, tuple[Callable[..., Any], float, list[float]]] = {
    "mean": (mean, 1.121172296677884, [0.47594042006970055, 1.8244400930845737]),
    "median": (median, 1.2355284591883107, [0.5063351900969985, 1.7430796364063508]),
    "iqm": (iqm, 0.892236399956988, [0.4197246607272732, 1.4750081376368358]),
    "gap": (optimality_gap, 0.7128292223213455, [0.4216425021493548, 1.018806181596312]),
    "probability": (probability_of_improvement, 0.6, [0.44982142857142865, 0.7357142857142857]),
}
"""What rliable 1.2.0 gives for these scores, in an environment of its own: its arch < 8 cannot live beside pandas 3.

``np.random.seed(7); library.get_interval_estimates({"x": OURS}, lambda *g: np.array([metrics.aggregate_iqm(*g)]),
reps=400)`` and the like; for the probability of improvement ``{"x": [OURS, THEIRS]}``.
"""


class SameDraws:
    """Gives `bootstrap` the numbers that rliable draws from NumPy's global generator, resample by resample."""

    def __init__(self, shapes: list[tuple[int, ...]], count: int) -> None:
        np.random.seed(7)
        draws = [[np.random.choice(shape[0], shape, replace=True) for shape in shapes] for _ in range(count)]
        self.groups = [np.stack(group) for group in zip(*draws, strict=True)]

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        group = self.groups.pop(0)
        assert group.shape == shape and group.max() < high
        return group


@pytest.mark.parametrize("name", RLIABLE)
def test_estimates_and_intervals_of_the_same_draws_are_rliables(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    estimate, value, interval = RLIABLE[name]
    scores = [OURS, THEIRS] if name == "probability" else [OURS]
    monkeypatch.setattr(np.random, "default_rng", lambda seed: SameDraws([each.shape for each in scores], 400))
    found = bootstrap(estimate, *scores, resamples=400)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert [found.low, found.high] == pytest.approx(interval, rel=1e-12)


def test_intervals_of_two_groups_are_a_literal_loops() -> None:
    """The definition, draw by draw in plain Python, with random numbers of another kind."""
    import random

    draws = random.Random(0)

    def resample(scores: np.ndarray) -> np.ndarray:
        return np.array([[draws.choice(list(env)) for _ in env] for env in scores.T]).T

    for estimate in (difference(mean), difference(iqm), probability_of_improvement):
        drawn = sorted(float(estimate(resample(OURS), resample(THEIRS))) for _ in range(4_000))
        found = bootstrap(estimate, OURS, THEIRS)
        spread = drawn[3_899] - drawn[99]
        assert found.low == pytest.approx(drawn[99], abs=0.06 * spread)
        assert found.high == pytest.approx(drawn[3_899], abs=0.06 * spread)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 400 samples of 30 normal scores; the percentile bootstrap of a mean is a little narrow: 93.5% at n = 30."""
    rng = np.random.default_rng(0)
    found = [bootstrap(mean, rng.normal(size=(30, 1)), resamples=1_000) for _ in range(400)]
    assert 0.90 < np.mean([each.low <= 0 <= each.high for each in found]) < 0.965


@pytest.mark.parametrize("scores", [[], [[]], [1.0, 2.0], [[1.0], [float("nan")]]])
def test_what_are_no_scores(scores: list) -> None:
    with pytest.raises(ValueError, match="scores are finite numbers"):
        bootstrap(mean, scores)
    with pytest.raises(ValueError, match="of the same envs"):
        bootstrap(difference(mean), OURS, OURS[:, :2])


def test_chunks_change_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(difference(mean), OURS, THEIRS)
    monkeypatch.setattr(statistics, "CHUNK", 1_000)
    assert bootstrap(difference(mean), OURS, THEIRS).low == pytest.approx(whole.low, abs=0.05)


# --- tables ---


def make_run(
    folder: Path,
    seed: int,
    score: float,
    agent: str = "dqn",
    env: str = "cartpole",
    reward: str = "",
    settings: dict[str, Any] | None = None,
) -> Path:
    """A finished run, with settings by dotted key."""
    folder.mkdir(parents=True)
    parts = {"agent": {"name": agent}, "env": {"name": env}} | ({"reward": {"name": reward}} if reward else {})
    (folder / "config.yaml").write_text(yaml.safe_dump(parts | {"seed": seed} | (settings or {})))
    rows = [
        {"kind": "eval", "step": 500, "return_mean": -7.0, "episodes": 20},
        {"kind": "train", "step": 900, "return_mean": None},
        {"kind": "eval", "step": 1000 + seed, "return_mean": score, "episodes": 20},
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, score in enumerate((500.0, 480.0, 430.0, 490.0)):
        make_run(Path(f"ours/s{seed}"), seed, score)
    for seed, score in enumerate((300.0, 500.0)):
        make_run(Path(f"peer/s{seed}"), seed, score, agent="sb3.dqn")
    return tmp_path


def test_a_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "ours", "against=peer", "reach=475"]) == 0
    head, _, row, *rest = capsys.readouterr().out.splitlines()
    assert head == (
        "| env | agent | steps | seeds | mean | interquartile mean | at least 475 | minus sb3.dqn | better with "
        "probability |"
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["cartpole", "dqn", "1,000 to 1,003", "4"]
    assert cells[4].startswith("475.0 [") and cells[5].startswith("485.0 [")
    assert cells[6] == "3 of 4"
    assert cells[7].startswith("75.0 [") and cells[8].startswith("0.562 [")  # (4 + 4 * 0 + half of a tie) / 8
    assert rest == ["", f"In brackets {results.METHOD}."]


def test_the_numbers_of_a_table_and_that_it_is_read_back(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "ours", "against=peer", "reach=475", "--json"]) == 0
    text = capsys.readouterr().out
    (row,), found = json.loads(text)["rows"], json.loads(text)["runs"]
    ours, theirs = np.array([[500.0], [480.0], [430.0], [490.0]]), np.array([[300.0], [500.0]])
    expected = bootstrap(difference(mean), ours, theirs)
    assert row["difference"] == {"value": 75.0, "low": expected.low, "high": expected.high}
    assert (row["seeds"], row["reached"], row["peer"], row["peer_seeds"]) == ([0, 1, 2, 3], 3, "sb3.dqn", 2)
    assert len(found) == 6 and found[0]["normalised"] == pytest.approx(1.0)
    Path("kept.json").write_text(text)
    assert results.read(Path("kept.json")) == [*results.read(Path("ours")), *results.read(Path("peer"))]


def test_several_envs_share_a_scale(runs: Path) -> None:
    for seed, score in enumerate((-1231.7, -151.3, -151.3, -151.3)):
        make_run(Path(f"ours/p{seed}"), seed, score, env="pendulum")
    rows = results.table([Path("ours")])
    assert [row.env for row in rows] == ["all 2, normalised", "cartpole", "pendulum"]
    cart = (475.0 - 22.3) / (500.0 - 22.3)
    best = max(run.normalised for run in results.read(Path("ours")) if run.env == "pendulum")
    assert rows[0].mean.value == pytest.approx((cart + 0.75 * best) / 2, abs=1e-3)


def test_runs_with_a_learned_reward_and_the_same_agent_twice_keep_names_of_their_own(runs: Path) -> None:
    make_run(Path("gail/s0"), 0, 1.0, reward="gail")
    make_run(Path("other/s0"), 0, 2.0)
    rows = results.table([Path("gail"), Path("ours"), Path("other")])
    assert {row.agent: row.mean.value for row in rows} == {
        "dqn with gail": 1.0,
        "dqn (ours)": 475.0,
        "dqn (other)": 2.0,
    }
    assert "| 1.000 | 1.000 |" in results.markdown(rows)


def test_a_sweep_that_run_wrote_is_a_row_for_each_setting(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lr in (1e-3, 1e-4):
        for seed in range(2):
            folder = Path(f"sweep/agent.lr={lr}_seed={seed}")
            make_run(folder, seed, 1000 * lr + seed, settings={"agent.lr": lr, "agent.hidden": [64], "steps": 1000})
    rows = results.table([Path("sweep")])
    assert [(row.agent, row.seeds) for row in rows] == [
        ("dqn agent.lr=0.0001", (0, 1)),
        ("dqn agent.lr=0.001", (0, 1)),
    ]
    assert [row.mean.value for row in rows] == pytest.approx([0.6, 1.5])
    assert main(["compare", "sweep", "--json"]) == 0
    Path("kept.json").write_text(capsys.readouterr().out)
    assert [row.agent for row in results.table([Path("kept.json")])] == [row.agent for row in rows]
    each = results.table(sorted(Path("sweep").iterdir()))
    assert [row.agent for row in each][:2] == ["dqn (agent.lr=0.0001_seed=0)", "dqn (agent.lr=0.0001_seed=1)"]
    assert main(["compare", "ours", "against=sweep"]) == 2
    sentence = "against=sweep holds dqn agent.lr=0.0001 and dqn agent.lr=0.001 on cartpole: give the folder of one."
    assert sentence in capsys.readouterr().err


def test_longer_runs_of_an_agent_are_a_row_of_their_own_and_presets_of_two_envs_are_not(runs: Path) -> None:
    make_run(Path("grown/a"), 0, 1.0, settings={"steps": 1000, "agent.lr": 0.1})
    make_run(Path("grown/b"), 0, 2.0, settings={"steps": 5000, "agent.lr": 0.1})
    make_run(Path("grown/c"), 0, 3.0, env="pendulum", settings={"steps": 7000, "agent.lr": 0.2})
    rows = results.table([Path("grown")])
    assert [row.agent for row in rows] == ["dqn steps=1000", "dqn steps=5000", "dqn"]


def test_folders_of_one_name_are_told_apart_by_their_paths(runs: Path) -> None:
    make_run(Path("a/dqn/s0"), 0, 1.0)
    make_run(Path("b/dqn/s0"), 0, 2.0)
    rows = results.table([Path("a/dqn"), Path("b/dqn"), Path("ours")])
    assert [row.agent for row in rows] == ["dqn (a/dqn)", "dqn (b/dqn)", "dqn (ours)"]


@pytest.mark.parametrize("words", [["mixed"], ["mixed/a", "mixed/b"], ["mixed/a", "against=mixed/b"]])
def test_runs_of_two_problems_are_refused(runs: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    make_run(Path("mixed/a"), 0, 1.0, settings={"env.velocities": True, "env.max_steps": 500, "env.threads": 1})
    make_run(Path("mixed/b"), 1, 1.0, settings={"env.velocities": True, "env.max_steps": 200, "env.threads": 2})
    assert main(["compare", *words]) == 2
    assert capsys.readouterr().err == (
        "rlgan: mixed/a has env.max_steps=500 and mixed/b has env.max_steps=200: compare runs of the same problem.\n"
    )


def test_where_settings_are_unknown_nothing_is_refused(runs: Path) -> None:
    make_run(Path("short"), 0, 1.0, settings={"env.max_steps": 200})
    docs = Path(__file__).parent.parent / "docs" / "results"
    assert len(results.table([Path("short"), Path("ours"), docs / "dqn-cartpole.json"])) == 3


def test_files_of_results_that_keep_settings_are_told_apart_as_folders_are(runs: Path) -> None:
    last = {"step": 9, "return_mean": 40.0, "return_std": 0.0, "returns": [40.0]}
    kept = {"agent": "dqn", "env": "newsvendor", "problem": {"env.max_steps": 7}, "evaluations": [last]}
    slow, fast = ({**kept, "seed": 0, "settings": {"agent.lr": lr}} for lr in (1e-4, 1e-3))
    Path("kept.json").write_text(json.dumps([slow, fast]))
    rows = results.table([Path("kept.json")])
    assert [row.agent for row in rows] == ["dqn agent.lr=0.0001", "dqn agent.lr=0.001"]
    assert results.read(Path("kept.json"))[0].normalised is None  # known scores are of other max_steps
    make_run(Path("longer"), 0, 1.0, env="newsvendor", settings={"env.max_steps": 8})
    with pytest.raises(UsageError, match=r"kept.json has env.max_steps=7 and longer has env.max_steps=8"):
        results.table([Path("kept.json"), Path("longer")])


def test_env_files_of_one_name_and_other_content_are_two_problems(runs: Path) -> None:
    for name, digest in {"a": "0" * 64, "b": "1" * 64}.items():
        folder = make_run(Path(f"shop/{name}"), 0, 1.0, env="./shop.py")
        (folder / "env.py.sha256").write_text(f"{digest}  env.py\n")
    sentence = "shop/a has env.py=sha256:000000000000 and shop/b has env.py=sha256:111111111111: compare runs"
    with pytest.raises(UsageError, match=sentence):
        results.table([Path("shop/a"), Path("shop/b")])


def test_a_score_has_the_scale_of_the_env_that_was_played(runs: Path) -> None:
    make_run(Path("same"), 0, 40.0, env="newsvendor")
    make_run(Path("other"), 0, 40.0, env="newsvendor", settings={"env.max_steps": 7})
    make_run(Path("odd"), 0, 40.0, env="newsvendor", settings={"env.max_steps": "x"})
    (same,), (other,), (odd,) = (results.read(Path(name)) for name in ("same", "other", "odd"))
    assert same.normalised is not None and other.normalised is None and odd.normalised is None
    kept = {"agent": "dqn", "env": "newsvendor", "seed": 0, "step": 1, "episodes": 1, "return_mean": 40.0}
    Path("kept.json").write_text(json.dumps([kept, kept | {"seed": 1, "normalised": 0.25}]))
    assert [run.normalised for run in results.read(Path("kept.json"))] == [same.normalised, 0.25]


@pytest.mark.parametrize(("ours", "theirs"), [("ours/s0", "peer"), ("ours", "peer/s0"), ("ours/s0", "peer/s0")])
def test_a_single_run_has_no_interval(runs: Path, ours: str, theirs: str) -> None:
    rows = results.table([Path(ours)], Path(theirs))
    row = results.markdown(rows).splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert "[" not in cells[6] + cells[7]
    assert float(cells[6]) == pytest.approx(rows[0].difference.value, abs=0.05)


def test_committed_results_are_tables_too() -> None:
    docs = Path(__file__).parent.parent / "docs" / "results"
    (row,) = results.table([docs / "dqn-cartpole.json"], reach=475.0)
    assert (row.agent, row.env, len(row.seeds), row.reached) == ("dqn", "cartpole", 10, 10)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "there is no nowhere: give a run folder, a folder of some, or a JSON file of results."),
        (["empty"], "empty holds no runs: give a run folder, a folder of some, or a JSON file of results."),
        (["reach=4"], "there is nothing to compare: name a folder of runs before against= and reach=."),
        (["ours", "reach=x"], "reach=x: is not a number; reach takes number or none"),
        (["."], ". holds two runs of dqn on cartpole with seed 0: give folders that hold one run of each seed"),
        (["ours", "against=mixed"], "against=mixed holds a2c and dqn on cartpole: give the folder of one."),
        (["begun"], "begun/metrics.jsonl holds no evaluation"),
        (["ours", "./ours/"], "ours is named twice: name each folder once, so that no run counts twice."),
        (["ours", "against=ours"], "ours is named twice: name each folder once"),
        (
            ["deep/down/there/poet"],
            "deep/down/there/poet is a run of text, which no single score judges: compare it by",
        ),
        (["ours", "agianst=peer"], "unknown key 'agianst': did you mean 'against' (path or none, default none)?"),
        (["ours/agent.lr=1"], "there is no ours/agent.lr=1: give a run folder"),
        (["bad.json"], "bad.json holds no results of runs (KeyError: 'agent')."),
        (["worse.json"], "worse.json holds no results of runs (JSONDecodeError"),
    ],
)
def test_what_cannot_be_compared(
    runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    Path("empty").mkdir()
    make_run(Path("mixed/a"), 0, 1.0, agent="a2c")
    make_run(Path("mixed/b"), 0, 1.0)
    make_run(Path("begun"), 9, 1.0)
    make_run(Path("deep/down/there/poet"), 9, 1.0)
    Path("deep/down/there/poet/config.yaml").write_text("generator: {name: mle}\ndata: {name: oracle}\nseed: 0\n")
    Path("deep/down/there/poet/metrics.jsonl").write_text('{"kind": "eval", "step": 9, "nll_test": 2.5}\n')
    if words == ["begun"]:
        Path("begun/metrics.jsonl").write_text("")
    Path("bad.json").write_text('[{"seed": 1, "return_mean": 2.0, "step": 3, "episodes": 4}]')
    Path("worse.json").write_text("{")
    assert main(["compare", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_an_unknown_file_of_results() -> None:
    with pytest.raises(UsageError, match="there is no x"):
        results.read(Path("x.json"))

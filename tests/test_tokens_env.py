"""Writing as an env: returns are the oracle's log probabilities, ends and masks, references, a judge, any agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_seqgan import CPU, TINY
from torch import Tensor
from torch.nn import functional as F

from rlgan import trained
from rlgan.cli.main import main
from rlgan.errors import UsageError
from rlgan.testing import check_env
from rlgan_data.oracle import OracleConfig, make
from rlgan_envs.tokens import TokensConfig, TokensEnv

SMALL: dict[str, Any] = {"vocabulary": 7, "width": 4, "length": 5}


def written(env: TokensEnv, actions: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Observations, rewards (L, n) and ends (L, n) of sequences (n, L)."""
    state, seen, paid, over = env.reset(len(actions), None), [], [], []
    for action in actions.unbind(1):
        seen.append(env.observe(state))
        state, reward, ended = env.step(state, action, None)
        paid.append(reward)
        over.append(ended)
    assert torch.equal(state["tokens"], actions)
    return [*seen, env.observe(state)], torch.stack(paid), torch.stack(over)


def test_the_return_is_the_oracles_log_probability() -> None:
    env = TokensEnv(TokensConfig(**SMALL, seed=3), CPU)
    data = make(OracleConfig(**SMALL, seed=3, samples=6))
    _, paid, over = written(env, data.real)
    assert data.judge is not None
    # the judge of the data set has the same oracle
    assert -float(paid.mean()) == pytest.approx(data.judge(CPU).nll(data.real), abs=1e-6)
    assert torch.allclose(paid.T, env.oracle.measure(data.real)[0], atol=1e-6)
    assert over.tolist() == [[False] * 6] * 4 + [[True] * 6]


def test_what_is_seen() -> None:
    actions = torch.tensor([[3, 0, 6, 0, 1]])
    seen, *_ = written(TokensEnv(TokensConfig(**SMALL), CPU), actions)
    grid = F.one_hot(actions[0], 7).float()
    for t, obs in enumerate(seen):
        assert torch.equal(obs.view(5, 7), torch.cat((grid[:t], torch.zeros(5 - t, 7))))
    seen, *_ = written(TokensEnv(TokensConfig(**SMALL, shows="last"), CPU), actions)
    assert not seen[0].any() and [int(obs.argmax()) for obs in seen[1:]] == actions[0].tolist()


def test_ends_and_masks() -> None:
    env = TokensEnv(TokensConfig(**SMALL, end=True, least=2), CPU)
    actions = torch.tensor([[4, 2, 0, 5, 0], [1, 2, 3, 4, 5]])
    _, paid, over = written(env, actions)
    assert over[:3].tolist() == [[False, False], [False, False], [True, False]] and bool(over[4].all())
    first = torch.tensor([[4, 2, 0, 0, 0]])
    assert float(paid[:3, 0].sum()) == pytest.approx(float(env.oracle.measure(first)[0].sum()), abs=1e-5)
    state = env.reset(2, None)
    for allowed in (False, False, True):
        mask = env.action_mask(state)
        assert mask[:, 0].tolist() == [allowed] * 2 and bool(mask[:, 1:].all())
        state, *_ = env.step(state, torch.tensor([4, 2]), None)
    assert not hasattr(TokensEnv(TokensConfig(**SMALL, end=True), CPU), "action_mask")
    with pytest.raises(UsageError, match=r"env.least=2 is for sequences that end by themselves, before 5 tokens"):
        TokensEnv(TokensConfig(**SMALL, least=2), CPU)


def test_references_write_as_the_oracle() -> None:
    env = TokensEnv(TokensConfig(**SMALL), CPU)
    rng, state = torch.Generator().manual_seed(0), env.reset(4_000, None)
    total = torch.zeros(2, 4_000)
    for k, name in enumerate(("oracle", "greedy")):
        state = env.reset(4_000, None)
        for _ in range(5):
            state, reward, _ = env.step(state, env.references()[name](state, rng), None)
            total[k] += reward
    _, entropy = env.oracle.measure(env.oracle.sample(torch.rand(4_000, 5, generator=rng)))
    assert float(total[0].mean()) == pytest.approx(-float(entropy.sum(1).mean()), abs=0.1)
    assert float(total[1].std()) < 1e-5 and float(total[1, 0]) > float(total[0].mean())


def test_a_discriminator_pays_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["run", *TINY.split(), "steps=30", f"dir={folder}"]) == 0
    env = TokensEnv(TokensConfig(judge=folder), CPU)
    actions = torch.randint(12, (4, 6))
    _, paid, _ = written(env, actions)
    assert not paid[:-1].any()
    assert torch.allclose(paid[-1], trained.load(folder).learner.belief(actions), atol=1e-6)
    assert env.references() == {} and env.protocol.startswith("sha256=")
    for given, said in (
        ({"vocabulary": 8}, "vocabulary=8 .* 12"),
        ({"length": 7}, "length=7 .* 6"),
        ({"end": True}, "end=true .* false"),
    ):
        with pytest.raises(UsageError, match=f"^env.{said}: leave it out"):
            TokensEnv(TokensConfig(judge=folder, **given), CPU)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("steps: 30\n", "steps: 60\n"))
    with pytest.raises(UsageError, match="is at step 30 of 60, and a judge that learns would change the reward"):
        TokensEnv(TokensConfig(judge=folder), CPU)
    with pytest.raises(UsageError, match=r"gone is not a run directory \(it has no config.yaml\)"):
        TokensEnv(TokensConfig(judge=tmp_path / "gone"), CPU)
    words = (
        "generator=mle data=oracle preset=none data.vocabulary=12 data.length=6 data.samples=32 eval.samples=9 steps=2"
    )
    assert main(["run", *words.split(), "generator.batch_size=8", "threads=1", f"dir={tmp_path / 'mle'}"]) == 0
    assert main(["run", "agent=ppo", "env=tokens", f"env.judge={tmp_path / 'mle'}", f"dir={tmp_path / 'x'}"]) == 2
    assert "holds nothing that judges sequences: give a run of generator=seqgan" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["agent=ppo env.end=true env.least=2", "agent=dqn agent.learning_starts=20", "agent=reinforce"]
)
def test_any_agent_writes(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = "env=tokens env.vocabulary=7 env.length=5 preset=none steps=200 copies=4 eval.episodes=4 threads=1"
    assert main(["run", *few.split(), *words.split(), f"dir={tmp_path / 'run'}"]) == 0
    # it has no pictures to watch
    assert capsys.readouterr().err.endswith(f"judge it: rlgan eval {tmp_path / 'run'}\n")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "eval" and rows[-1]["return_mean"] < 0


def test_it_conforms() -> None:
    check_env("tokens")
    check_env("tokens", TokensConfig(**SMALL, end=True, least=2, shows="last"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ppo_learns_to_write_likely_tokens(tmp_path: Path) -> None:
    """Seed 0. Its first games earn what random tokens do; at the end they are likelier than the oracle's own draws."""
    world = "env=tokens env.vocabulary=8 env.length=6 threads=1 seed=0"
    ours = "agent=ppo preset=none steps=30k copies=16 agent.horizon=32 agent.minibatch=128 agent.epochs=6 agent.lr=1e-3"
    theirs = "agent=reference:oracle eval.episodes=200"
    found = []
    for name, words in {"ppo": ours, "oracle": theirs}.items():
        assert main(["run", *world.split(), *words.split(), f"dir={tmp_path / name}"]) == 0
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        found.append((rows[0]["return_mean"], rows[-1]["return_mean"]))
    (first, last), (_, drawn) = found
    assert last > drawn > first

"""Learned rewards: the stage in the sources, curiosity, imitation and its demonstrations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from safetensors.torch import save_file
from torch import Tensor

from rlgan.cli.main import main
from rlgan.core.buffers import Ring
from rlgan.core.protocols import Phase, Rollouts, Spaces
from rlgan.core.reward import RewardStage
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.store import demos
from rlgan_rewards.gail import GAIL, GAILConfig
from rlgan_rewards.rnd import RND, RNDConfig

CPU = torch.device("cpu")
SPACES = Spaces(Box(-9.0, 9.0, (2,)), Discrete(2), 1000, env="plane")


class Model:
    """Gives the number that a row leads to as its reward, and counts its updates."""

    when, every, batch_size = "sample", 4, 3

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def reward(self, rows: dict[str, Tensor], learner: object) -> Tensor:
        return rows["next_obs"].squeeze(-1)

    def update(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        self.drawn.append(len(rows["obs"]))
        return {"loss_model": torch.tensor(1.0)}

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, tree: dict[str, object]) -> None:
        pass


def rows(obs: Tensor, action: Tensor, **more: Tensor) -> dict[str, Tensor]:
    valid = torch.ones(obs.shape[:2], dtype=torch.bool)
    return {"obs": obs, "action": action, "reward": torch.zeros(obs.shape[:2]), "valid": valid, **more}


def test_the_stage_gives_invalid_rows_nothing_and_trains_by_rows() -> None:
    model = Model()
    stage = RewardStage(model, None, "eager")
    batch = {"next_obs": torch.tensor([[[5.0], [7.0]]]), "valid": torch.tensor([[True, False]])}
    assert stage(batch).tolist() == [[5.0, 0.0]]
    for _ in range(5):
        stage.learn(3, lambda count: {"obs": torch.zeros(count)})
    assert model.drawn == [3, 3, 3] and stage.credit == 3
    assert stage.metrics["loss_model"] == 1.0


def test_rewards_of_drawn_windows_follow_the_true_next_observation() -> None:
    ring = Ring(64, 1, [slice(0, 1)], 1, CPU)
    for t in range(20):  # row t shows t; every fifth row ends an episode, the next one is invalid
        ended, invalid = t % 5 == 3, t % 5 == 4
        ring.write(
            0,
            {
                "obs": torch.tensor([[float(t)]]),
                "first": torch.tensor([t % 5 == 0]),
                "action": torch.tensor([0]),
                "reward": torch.tensor([-1.0]),
                "terminated": torch.tensor([ended]),
                "truncated": torch.tensor([False]),
                "valid": torch.tensor([not invalid]),
            },
        )
    batch = ring.draw(1, 256, 2, 0.5, RewardStage(Model(), None, "eager"))
    good = batch["weight"][0] > 0
    for obs, reward in zip(batch["obs"][0][good].flatten().tolist(), batch["reward"][0][good].tolist(), strict=True):
        last = obs % 5 == 3
        assert reward == obs + 1 + (0 if last else 0.5 * (obs + 2)), obs


def test_the_envs_reward_is_clipped_before_a_learned_one_is_added() -> None:
    class Plane:
        observation_space, action_space, max_steps = Box(-9.0, 9.0, (1,)), Discrete(2), 5

        def reset(self, n: int, rng: torch.Generator | None) -> dict[str, Tensor]:
            return {"x": torch.zeros(n, 1)}

        def observe(self, state: dict[str, Tensor]) -> Tensor:
            return state["x"]

        def step(
            self, state: dict[str, Tensor], action: Tensor, rng: object
        ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
            x = state["x"] + 0.25
            return {"x": x}, torch.tensor([5.0, -0.5]), torch.zeros(len(x), dtype=torch.bool)

    class Bonus(Model):
        def reward(self, rows: dict[str, Tensor], learner: object) -> Tensor:
            assert "carry" not in rows
            return rows["reward"] + rows["next_obs"].squeeze(-1)

    act = lambda obs, carry, step, explore: ({"action": torch.zeros(len(obs), dtype=torch.int64)}, carry)  # noqa: E731
    stream = Stream(VecEnv(Plane(), 2, "cpu"), act, lambda n: (torch.zeros(n, 3),))
    stream.begin()
    phase = Phase("train", Rollouts(4, clip_reward=True, sequence=2, minibatch=8), lambda batch: {})
    source = make_source(phase, stream, RewardStage(Bonus(), None, "eager"))
    # signs of 1 and -1, and what a row leads to: .25, .5, .75, 1
    assert sorted(source.next()["reward"].flatten().tolist()) == [-0.75, -0.5, -0.25, 0.0, 1.25, 1.5, 1.75, 2.0]


def test_an_agent_with_a_memory_learns_from_a_learned_reward(tmp_path: Path) -> None:
    words = "agent=ppo agent.memory=gru env=cartpole reward=rnd preset=none steps=300 copies=4 agent.horizon=16"
    assert main(["run", *words.split(), "agent.minibatch=16", "agent.sequence=8", f"dir={tmp_path / 'run'}"]) == 0


def test_curiosity_fades_where_it_has_been() -> None:
    torch.manual_seed(0)
    model = RND(SPACES, RNDConfig(lr=3e-3, scale=1.0), CPU)
    known, new = torch.randn(1, 64, 2) * 0.1, torch.randn(1, 64, 2) * 0.1 + 4.0
    action = torch.zeros(1, 64, dtype=torch.long)
    for _ in range(400):
        model.update({"next_obs": known + 0.01 * torch.randn_like(known), "weight": torch.ones(1, 64)})
    bonus = {
        name: model.reward(rows(o, action, next_obs=o), None).mean().detach()
        for name, o in (("known", known), ("new", new))
    }
    assert float(bonus["new"]) > 5 * float(bonus["known"]) > 0


def test_curiosity_adds_to_the_envs_reward() -> None:
    model = RND(SPACES, RNDConfig(scale=0.0, env_scale=2.0), CPU)
    obs = torch.randn(1, 3, 2)
    batch = rows(obs, torch.zeros(1, 3, dtype=torch.long), next_obs=obs) | {"reward": torch.tensor([[1.0, 2.0, 3.0]])}
    assert model.reward(batch, None).tolist() == [[2.0, 4.0, 6.0]]


def test_the_discriminator_prefers_demonstrations(tmp_path: Path) -> None:
    torch.manual_seed(0)
    obs = torch.randn(500, 2)
    demos.save(tmp_path / "d", obs, (obs[:, 0] > 0).long(), {"env": "plane"})
    model = GAIL(SPACES, GAILConfig(tmp_path / "d", lr=1e-3), CPU)
    seen = torch.randn(1, 500, 2)
    right, wrong = (seen[..., 0] > 0).long(), (seen[..., 0] <= 0).long()
    # with logits of 0 the reward -log(1 - 1/2) is log 2
    with torch.no_grad():
        for p in model.discriminator.layers[-1].parameters():
            p.zero_()
    assert float(model.reward(rows(seen, right), None)[0, 0]) == pytest.approx(math.log(2))
    for _ in range(300):
        model.update(rows(seen, wrong, weight=torch.ones(1, 500)))
    good, bad = (float(model.reward(rows(seen, a), None).mean()) for a in (right, wrong))
    assert good > 2 * bad > 0


def test_nothing_is_paid_for_leaving_demonstrations_that_are_matched(tmp_path: Path) -> None:
    torch.manual_seed(0)
    obs, action = torch.randn(500, 2), torch.randint(2, (500,))
    demos.save(tmp_path / "d", obs, action, {"env": "plane"})
    model = GAIL(SPACES, GAILConfig(tmp_path / "d", lr=1e-3), CPU)
    for _ in range(300):
        drawn = torch.randint(500, (1, 128))
        model.update(rows(obs[drawn], action[drawn], weight=torch.ones(1, 128)))
    # no discriminator tells equals apart, so D = 1/2 and the reward log 2, inside and 9 deviations away; one whose
    # gradient is drawn to a norm of 1 gives more than 1 on one of the sides
    away = torch.tensor([[[0.0, 0.0], [9.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0]]])
    with torch.no_grad():
        paid = model.reward(rows(away, torch.zeros(1, 5, dtype=torch.long)), None)
    assert paid.flatten().tolist() == pytest.approx([math.log(2)] * 5, abs=0.25)


def test_other_demonstrations_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    obs, action = torch.randn(9, 2), torch.zeros(9, dtype=torch.long)
    demos.save(tmp_path / "d", obs, action, {"env": "plane"})
    before = GAIL(SPACES, GAILConfig(tmp_path / "d"), CPU)
    again = GAIL(SPACES, GAILConfig(tmp_path / "d"), CPU)
    again.load_state_dict(before.state_dict())
    seen = rows(obs[None], action[None])
    assert torch.equal(again.reward(seen, None), before.reward(seen, None))
    demos.save(tmp_path / "d", obs + 1, action, {"env": "plane"})
    with pytest.raises(ValueError, match="holds other demonstrations by now"):
        GAIL(SPACES, GAILConfig(tmp_path / "d"), CPU).load_state_dict(before.state_dict())


def test_demonstrations_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "d.safetensors"
    obs, action = torch.randn(7, 2), torch.arange(7)
    demos.save(path, obs, action, {"env": "plane"})
    back = demos.load(path, "plane", Box(-9.0, 9.0, (2,)), Discrete(7))
    assert torch.equal(back[0], obs) and torch.equal(back[1], action)


def _missing(path: Path) -> None:
    pass


def _folder(path: Path) -> None:
    path.mkdir()


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("obs,action\n" * 50)


def _truncated(path: Path) -> None:
    demos.save(path, torch.randn(9, 4), torch.ones(9, dtype=torch.long), {"env": "cartpole"})
    path.write_bytes(path.read_bytes()[:-3])


def _weights(path: Path) -> None:
    save_file({"obs": torch.randn(9, 4), "action": torch.ones(9, dtype=torch.long)}, path)


def _of(env: str, obs: Tensor, action: Tensor) -> Callable[[Path], None]:
    return lambda path: demos.save(path, obs, action, {"env": env})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_missing, "cannot be read (No such file or directory"),
        (_folder, "cannot be read ("),
        (_empty, "cannot be read (Error while deserializing header: header too small"),
        (_text, "cannot be read (Error while deserializing header"),
        (_truncated, "cannot be read (Error while deserializing header"),
        (_weights, "hold none: "),
        (_of("acrobot", torch.randn(9, 6), torch.arange(9) % 3), "are of env=acrobot and this run is in env=cart"),
        (_of("cartpole", torch.randn(0, 4), torch.arange(0)), "are damaged: 0 observations and 0 actions: "),
        (_of("cartpole", torch.randn(9, 4), torch.arange(8)), "are damaged: 9 observations and 8 actions: "),
        (_of("cartpole", torch.randn(9, 3), torch.arange(9) % 2), "do not fit this env: they show (3,) and act"),
        (_of("cartpole", torch.randn(9, 4), torch.arange(9)), "do not fit this env: they show (4,) and actions 0 to 8"),
    ],
)
def test_demonstrations_that_cannot_be_learned_from_are_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], said: str
) -> None:
    path, folder = tmp_path / "d.safetensors", tmp_path / "run"
    make(path)
    words = ["agent=dqn", "env=cartpole", "reward=gail", f"reward.demos={path}", f"dir={folder}"]
    assert main(["run", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"rlgan: the demonstrations {path} {said}"), error
    assert error.endswith("record some with `rlgan eval DIR demos=PATH`\n") and error.count("\n") == 1
    assert not folder.exists()


def test_recorded_demonstrations_are_the_counted_games(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, path = tmp_path / "run", tmp_path / "d.safetensors"
    words = "agent=dqn env=cartpole preset=none steps=600 copies=4 eval.episodes=2 agent.learning_starts=100"
    assert main(["run", *words.split(), f"dir={folder}"]) == 0
    assert main(["eval", str(folder), "episodes=20", f"demos={path}", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    obs, action = demos.load(path, "cartpole", Box(-9.0, 9.0, (4,)), Discrete(2))
    assert len(obs) == round(row["length_mean"] * 20) == sum(row["returns"])
    assert set(action.tolist()) <= {0, 1}
    assert main(["run", *words.split(), "reward=gail", f"reward.demos={path}", f"dir={tmp_path / 'g'}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "g" / "metrics.jsonl").read_text().splitlines()]
    assert any("loss_gail" in row for row in rows)


def test_gail_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "agent=dqn", "env=cartpole", "reward=gail", f"dir={tmp_path / 'x'}"]) == 2
    assert "reward.demos is missing" in capsys.readouterr().err
    with pytest.raises(UsageError, match="reads vectors and numbered actions"):
        GAIL(Spaces(Box(0, 1, (2, 2)), Discrete(2), 10), GAILConfig(tmp_path), CPU)

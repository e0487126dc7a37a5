"""Generators of sequences beside SeqGAN: their losses and rewards by hand, and their runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lines import sentences
from test_seqgan import CONFIG, CPU, SMALL, fixed, small
from torch import Tensor
from torch.nn import functional as F

from rlgan.cli.main import main
from rlgan.core.protocols import DataSet
from rlgan.errors import UsageError
from rlgan.measures import bleu
from rlgan.nn.text import TextCNN, TokenLSTM
from rlgan.registry import Registry
from rlgan.tokens import Tokens
from rlgan_data.oracle import make
from rlgan_generators import writers
from rlgan_generators.mle import MLE, MLEConfig, mixed
from rlgan_generators.pgbleu import PGBLEU, Bleu, PGBLEUConfig
from rlgan_generators.rankgan import RankGAN, RankGANConfig, among, log_rank, ranking_loss
from rlgan_generators.relgan import RelGAN, RelGANConfig, relativistic_loss, relaxed
from rlgan_generators.seqgan import SeqGANConfig
from rlgan_generators.seqppo import SeqPPO, SeqPPOConfig, clipped_loss, normalised
from rlgan_generators.writers import last_token, rollout_rewards, token_advantages

WORLD = (
    "data=oracle preset=none data.vocabulary=12 data.width=4 data.length=6 data.samples=32 generator.batch_size=8 "
    "eval.samples=20 threads=1 device=cpu"
)
CNN = "generator.pretrain=1 generator.pretrain_d=1 generator.draws=1 generator.passes=1 generator.rollouts=2 "
RUNS = {
    "mle": "steps=12 generator.own=0.3",
    "pgbleu": "steps=8 generator.pretrain=1",
    "rankgan": f"steps=24 {CNN} generator.widths=[1,3] generator.filters=[5,7]",
    "relgan": "steps=24 generator.pretrain=1 generator.parts=3 generator.filters=4",
    "seqppo": "steps=40 generator.pretrain=1 generator.pretrain_d=1 generator.written=16",
    "seqgan": f"steps=24 {CNN} generator.widths=[1,3] generator.filters=[5,7] generator.reward=actor-critic",
}


def test_the_last_token_that_counts() -> None:
    tokens = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 2, 1]])
    assert last_token(tokens, 0).tolist() == [[False, True, False], [True, False, False], [False, False, True]]
    assert last_token(tokens, None).tolist() == [[False, False, True]] * 3


def test_advantages_by_hand() -> None:
    tokens = torch.tensor([[1, 2, 1], [1, 0, 0]])
    reward = torch.tensor([[0.0, 1.0, 4.0], [2.0, 3.0, 9.0]])
    value = torch.tensor([[1.0, 2.0, 3.0], [0.5, 1.0, 7.0]])
    # errors of one token, from the end: 4 - 3 = 1; 1 + 3/2 - 2 = 0.5; 0 + 2/2 - 1 = 0
    # then gamma lam = 1/4 of what follows is added; the second sequence ends at its second token
    found = token_advantages(reward, value, tokens, 0, 0.5, 0.5)
    first = [0.0 + 0.25 * (0.5 + 0.25 * 1.0), 0.5 + 0.25 * 1.0, 1.0]
    assert found.tolist() == [pytest.approx(first), pytest.approx([2 + 0.5 - 0.5 + 0.25 * 2.0, 2.0, 0.0])]


def test_actor_critic_learns_the_belief_and_pays_what_raises_it() -> None:
    gan = small(SeqGANConfig(**{**vars(CONFIG), "reward": "actor-critic", "lam": 1.0, "critic": 200}))
    gan.belief = lambda tokens: (tokens[:, 0] == 3).float()
    tokens = torch.randint(12, (64, 6))
    tokens[:, 0] = torch.tensor([3] * 32 + [5] * 32)
    with torch.no_grad():
        unfitted = gan.value(gan.policy.states(tokens)[0].transpose(0, 1)[:, 0]).squeeze(-1)
    # of a value that knows nothing of these sequences yet
    assert torch.allclose(gan.rewards(tokens)[:, 0], (tokens[:, 0] == 3).float() - unfitted, atol=1e-5)
    earned = gan.rewards(tokens)
    # all is decided by the first token: half of all sequences have it
    assert float(earned[:32, 0].min()) > 0.3 and float(earned[32:, 0].max()) < -0.3
    assert float(earned[:, 0].mean()) == pytest.approx(0, abs=0.15)


def test_actor_critic_needs_no_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    gan = small(SeqGANConfig(**{**vars(CONFIG), "reward": "actor-critic"}))
    monkeypatch.setattr(TokenLSTM, "completions", None)
    before = [p.clone() for p in gan.policy.parameters()]
    gan.improve({})
    assert not any(torch.equal(a, b) for a, b in zip(before, gan.policy.parameters(), strict=True))


def test_long_sequences_are_completed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their completions are the same where one word alone is likely; of no more than two sequences at once."""
    policy, tokens = TokenLSTM(9, 4, 4).start(0.1), torch.randint(9, (5, 6))
    with torch.no_grad():
        policy.out_bias[3] = 1e4
    seen: list[int] = []

    def score(sequences: Tensor) -> Tensor:
        seen.append(len(sequences))
        return sequences.float() @ torch.arange(1.0, 7.0)

    whole = rollout_rewards(policy, score, tokens, 2)
    monkeypatch.setattr(writers, "COMPLETED", 2 * (5 * 2 * 6) + 1)
    assert torch.equal(rollout_rewards(policy, score, tokens, 2), whole)
    assert seen == [50, 5, 20, 20, 10, 5]
    # two of its own tokens, then nothing but word 3
    assert whole[:, 1].tolist() == [float(row[0] + 2 * row[1] + 3 * (3 + 4 + 5 + 6)) for row in tokens]


def test_a_sequence_of_one_token_earns_its_own_score() -> None:
    tokens = torch.tensor([[3], [1]])
    assert rollout_rewards(TokenLSTM(9, 4, 4).start(0.1), lambda x: x[:, 0].float(), tokens, 2).tolist() == [
        [3.0],
        [1.0],
    ]


def test_clipped_loss_by_hand() -> None:
    old = torch.zeros(2, 3)
    ratio, advantage = (
        torch.tensor([[1.5, 1.5, 0.5], [0.5, 1.1, 9.0]]),
        torch.tensor([[1.0, -1.0, 1.0], [-1.0, 2.0, 9]]),
    )
    counts = torch.tensor([[True, True, True], [True, True, False]])
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8), 2.2
    assert float(clipped_loss(ratio.log(), old, advantage, counts, 0.2)) == pytest.approx(
        -(1.2 - 1.5 + 0.5 - 0.8 + 2.2) / 5
    )
    scaled = normalised(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[True, True, False]]))
    assert scaled[0, :2].tolist() == [-1.0, 1.0]


def seqppo(**settings: Any) -> SeqPPO:
    torch.manual_seed(0)
    return SeqPPO(make(SMALL), SeqPPOConfig(batch_size=8, embedding=5, hidden=6, written=64, **settings), CPU)


def test_the_discriminator_adds_up_what_each_token_says(monkeypatch: pytest.MonkeyPatch) -> None:
    gan = seqppo(dropout=0.0)
    said = gan.adds(torch.tensor([[0, 2, 2]]))
    assert said.tolist() != gan.adds(torch.tensor([[0, 2, 1]])).tolist()
    assert torch.equal(said[:, :2], gan.adds(torch.tensor([[0, 2, 1]]))[:, :2])
    with torch.no_grad():
        gan.discriminator.start(0.0).out_bias.copy_(torch.arange(12) / 4 - 0.5)
    assert gan.adds(torch.tensor([[0, 2, 4]])).tolist() == [[-0.5, 0.0, 0.5]]
    monkeypatch.setattr(gan, "made", lambda n: torch.full((n, 2), 4))
    # odds of -0.5 and -1 for the real one, 0.5 and 1 for the made one: all on the wrong side
    found = gan.update({"real": torch.tensor([[0, 0]])})
    expected = (math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(1.0))) / 2
    assert float(found["loss_d"]) == pytest.approx(expected) and float(found["accuracy"]) == 0.0


def test_a_sequence_earns_the_odds_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    gan, seen = seqppo(), []
    monkeypatch.setattr("rlgan_generators.seqppo.token_advantages", lambda r, *rest: (seen.append(r), r)[1])
    monkeypatch.setattr(gan, "adds", lambda tokens: tokens.float())
    gan.improve({})
    (reward,) = seen
    assert (reward == reward.round()).all() and 5 < float(reward.max()) <= 11
    assert float(gan.latest["reward"]) == pytest.approx(float(reward.sum(1).mean()))


def test_clipped_updates_make_rewarded_tokens_likely() -> None:
    gan = seqppo(lr_pg=1e-2)
    gan.adds = lambda tokens, dropout=0.0: (tokens == 3).float()
    for _ in range(12):
        gan.improve({})
    assert float((gan.sample(400) == 3).float().mean()) > 0.6  # of 12 tokens
    assert float(gan.latest["clipped"]) > 0


def test_likelihood_beside_the_reward() -> None:
    def heldout(weight: float) -> float:
        gan = seqppo(likelihood=weight, lr_pg=1e-2)
        gan.adds = lambda tokens, dropout=0.0: torch.zeros(tokens.shape)
        for _ in range(10):
            gan.improve({})
        return float(gan.log_prob(gan.real).mean())

    assert heldout(1.0) > heldout(0.0) + 0.05


def test_scheduled_inputs_are_mixed() -> None:
    policy = fixed([0.0, 0.0, 1.0])
    real = torch.zeros(2_000, 4, dtype=torch.int64)
    torch.manual_seed(0)
    given = mixed(policy, real, torch.tensor(0.25), torch.rand(2, 2_000, 4))
    assert float((given == 2).float().mean()) == pytest.approx(0.25, abs=0.02) and not (given == 1).any()
    assert torch.equal(mixed(policy, real, torch.tensor(0.0), torch.rand(2, 2_000, 4)), real)
    # with all tokens its own it is a sample, by the same numbers
    torch.manual_seed(1)
    model, uniform = TokenLSTM(7, 3, 4).start(1.0), torch.rand(2, 5, 6)
    assert torch.equal(mixed(model, real[:5, :1].expand(5, 6), torch.tensor(1.0), uniform), model.sample(uniform[1]))


def test_likelihood_after_other_tokens() -> None:
    torch.manual_seed(0)
    model = TokenLSTM(7, 3, 4).start(1.0)
    tokens, given = torch.randint(7, (2, 5, 6))
    found, whole = model.log_prob(tokens, given=given), given.clone()
    whole[:, 3] = tokens[:, 3]
    assert torch.allclose(found[:, 3], model.log_prob(whole)[:, 3]) and torch.equal(
        model.log_prob(given), model.log_prob(given, given=given)
    )


def test_the_share_of_own_tokens_rises_with_each_pass() -> None:
    torch.manual_seed(0)
    learner = MLE(make(SMALL), MLEConfig(batch_size=8, own=0.3, most_own=0.7), CPU)
    ((phase),) = learner.phases()
    shares = [phase.update({"real": learner.sample(8), "step": torch.tensor(step)})["own"] for step in (1, 4, 5, 9, 13)]
    assert torch.stack(shares).tolist() == pytest.approx([0.3, 0.3, 0.6, 0.7, 0.7])


@pytest.mark.parametrize("end", [0, None])
@pytest.mark.parametrize("words", [4, 30])
def test_bleu_of_fixed_shapes_is_the_measure(words: int, end: int | None) -> None:
    made, references = sentences(25, 8, words, 0, end), sentences(40, 8, words, 1, end)
    for order in (2, 3, 4):
        expected = [bleu(row[None], references, order, end)[-1] for row in made]
        assert Bleu(references, order, end, words)(made).tolist() == pytest.approx(expected, abs=1e-6)
    assert Bleu(references[:, :2], 3, end, words)(made[:, :2]).tolist() == pytest.approx(
        [bleu(row[None, :2], references[:, :2], 3, end)[-1] for row in made], abs=1e-6
    )
    with pytest.raises(UsageError, match=r"n-grams of 5 of 9,000 tokens cannot be numbered: lower generator.order"):
        Bleu(references, 5, end, 9_000)


def test_bleu_makes_real_ngrams_likely() -> None:
    torch.manual_seed(0)
    real = torch.tensor([[1, 2, 3, 1, 2, 3]]).repeat(16, 1)
    learner = PGBLEU(DataSet(real, tokens=Tokens(tuple(map(str, range(5))))), PGBLEUConfig(batch_size=32), CPU)
    before = float(learner.bleu(learner.made(200)).mean())
    for _ in range(30):
        learner.update({})
    assert float(learner.bleu(learner.made(200)).mean()) > 2 * before


def test_ranks_by_hand() -> None:
    # two references; the sequence is e and 1 times as likely as what it is compared with, which counts 3 and 1
    near, others = torch.tensor([[1.0, 0.0]]), torch.tensor([3.0, 1.0]).log()
    expected = (math.log(math.e / (math.e + 3)) + math.log(1 / 2)) / 2
    assert float(log_rank(near, others)) == pytest.approx(expected)
    loss = ranking_loss(torch.tensor([0.8, 0.3]).log(), torch.tensor([True, False]))
    assert float(loss) == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 2)
    likeness = torch.tensor([[0.0], [1.0], [2.0]])
    assert float(among(likeness, torch.tensor([True, False, True]))) == pytest.approx(math.log(1 + math.exp(2)))


def test_the_ranker_learns_to_prefer_real_ones() -> None:
    torch.manual_seed(0)
    real = torch.randint(0, 6, (64, 6))
    data = DataSet(real, tokens=Tokens(tuple(map(str, range(12)))))
    config = RankGANConfig(batch_size=8, widths=(1, 2), filters=(8, 8), lr_d=1e-2, rollouts=2, precision="float32")
    gan = RankGAN(data, config, CPU)
    batch = {"mixed": torch.cat((real[:8], torch.randint(6, 12, (8, 6)))), "is_real": torch.arange(16) < 8}
    first = float(gan.update(batch)["loss_d"])
    for _ in range(60):
        last = float(gan.update(batch)["loss_d"])
    assert last < 0.6 * first
    gan.improve({})
    # among 16 real ones what is made ranks below the average, 1/17
    assert 0 < float(gan.latest["reward"]) < 1 / 17


def test_relaxed_tokens_are_samples_and_carry_gradients() -> None:
    torch.manual_seed(0)
    policy = fixed([0.2, 0.3, 0.5])
    uniform = torch.rand(3, 4_000, 3).clamp_min(1e-20)
    soft, hard = relaxed(policy, -(-uniform.log()).log(), torch.tensor(100.0))
    assert (hard.flatten().bincount() / 12_000).tolist() == pytest.approx([0.2, 0.3, 0.5], abs=0.02)
    assert torch.allclose(soft.sum(-1), torch.ones(4_000, 3), atol=1e-5) and torch.equal(soft.argmax(-1), hard)
    assert float((soft.amax(-1) > 0.99).float().mean()) > 0.9
    # softmax of logits + noise, times the sharpness
    one = relaxed(policy, torch.zeros(1, 1, 3), torch.tensor(2.0))[0][0, 0]
    assert one.tolist() == pytest.approx([4 / 38, 9 / 38, 25 / 38])
    (gradient,) = torch.autograd.grad(
        relaxed(policy, torch.zeros(1, 1, 3), torch.tensor(1.0))[0][0, 0, 0], policy.out_bias
    )
    assert gradient.tolist() == pytest.approx([0.2 * 0.8, -0.2 * 0.3, -0.2 * 0.5])


def test_relaxed_tokens_end() -> None:
    torch.manual_seed(0)
    policy = fixed([0.5, 0.3, 0.2], end=0)
    uniform = torch.rand(4, 200, 3).clamp_min(1e-20)
    soft, hard = relaxed(policy, -(-uniform.log()).log(), torch.tensor(1.0))
    after = (hard == 0).cumsum(1) > 1
    assert after.any() and (hard[after] == 0).all() and (soft[after] == torch.tensor([1.0, 0, 0])).all()


def test_the_relativistic_loss_is_antisymmetric() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    assert float(relativistic_loss(a, b)) == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2)
    apart = relativistic_loss(a, b) - relativistic_loss(b, a)
    assert float(apart) == pytest.approx(float((b - a).mean()))  # softplus(x) - softplus(-x) = x


def test_parts_of_an_embedding_are_judged_one_by_one() -> None:
    torch.manual_seed(0)
    net = TextCNN(9, 6, (1, 2), (3, 4), 0.5, parts=3)
    tokens = torch.randint(9, (5, 4))
    found = net(tokens, False).view(5, 3, 2)
    for part in range(3):
        alone = TextCNN(9, 2, (1, 2), (3, 4), 0.5)
        weights = net.state_dict()
        weights["embedding.weight"] = weights["embedding.weight"][:, 2 * part : 2 * part + 2]
        alone.load_state_dict(weights)
        assert torch.allclose(alone(tokens, False), found[:, part], atol=1e-6)


def test_relgan_fools_its_discriminator() -> None:
    torch.manual_seed(0)
    gan = RelGAN(make(SMALL), RelGANConfig(batch_size=32, lr_g=1e-2, parts=2, filters=4, dropout=0.0), CPU)
    real = gan.real = make(SMALL).real

    def advantage() -> float:
        with torch.no_grad():
            return float((gan.logits(F.one_hot(gan.made(200), 12).float() @ gan.discriminator.embedding.weight)).mean())

    frozen, before = [p.clone() for p in gan.discriminator.parameters()], advantage()
    for _ in range(40):
        gan.improve({"real": real})
    assert advantage() > before and all(
        torch.equal(a, b) for a, b in zip(frozen, gan.discriminator.parameters(), strict=True)
    )
    assert float(gan.latest["sharpness"]) == pytest.approx(2 ** (39 / 5_000)) and float(gan.made_updates) == 40


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_each(name: str, tmp_path: Path) -> None:
    words = [f"generator={name}", *WORLD.split(), *RUNS[name].split(), "record.every=2", "checkpoint.every=1000"]
    assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "eval" and rows[-1]["nll_test"] < 5
    if name != "mle":
        assert {row.get("phase") for row in rows} >= {"pretrain", "train"} and "loss_g" in rows[-2]
    assert main(["eval", str(tmp_path / "run"), "temperatures=[0.5,1]"]) == 0


def test_presets_have_the_lengths_they_say() -> None:
    for name, published in {"pgbleu": 800, "relgan": 15_000}.items():
        spec = Registry().get("generators", name)
        values = next(p.values for p in spec.presets if p.name in ("repo", "paper"))
        assert values["steps"] == values["generator.pretrain"] * (9_984 // 64) + published


def test_the_published_settings() -> None:
    def config(name: str, preset: str) -> Any:
        spec = Registry().get("generators", name)
        values = next(p.values for p in spec.presets if p.name == preset)
        own = {key.removeprefix("generator."): v for key, v in values.items() if key.startswith("generator.")}
        return spec.config(**{key: tuple(v) if isinstance(v, list) else v for key, v in own.items()})

    of_the_generator = ("batch_size", "embedding", "hidden", "max_norm")
    for name, preset, lr in (
        ("seqgan", "repo", 1e-2),
        ("seqgan", "paper", 1e-3),
        ("mle", "repo", 1e-2),
        ("mle", "paper", 1e-3),
        ("mle", "scheduled", 1e-3),
        ("pgbleu", "paper", 1e-3),
    ):
        found = config(name, preset)
        assert [getattr(found, key) for key in of_the_generator] == [64, 32, 32, 5.0] and found.lr == lr
    for preset in ("repo", "paper"):
        found = config("seqgan", preset)
        discriminator = (found.lr_d, found.dropout, found.decay, found.embedding_d, found.passes, found.draws)
        assert discriminator == (1e-4, 0.25, 0.2, 64, 3, 5)
        assert (found.rollouts, found.lr_pg, found.reward, found.precision) == (16, None, "rollout", "float32")
    assert config("seqgan", "paper").pretrain == 240
    assert not config("mle", "repo").shuffle and config("mle", "scheduled").own == 0.002
    bleu = config("pgbleu", "paper")
    assert (bleu.order, bleu.rollouts, bleu.references, bleu.pretrain) == (3, 1, 4_000, 200)

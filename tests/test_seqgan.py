"""SeqGAN: its sampler, losses, rewards, order of work, and the oracle that judges it."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import itertools
import json
import math
import os
import signal
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from test_resume import assert_equal, newest

from rlgan.cli.main import main
from rlgan.core.capture import Captured, capture
from rlgan.core.protocols import DataSet, Phase, Samples
from rlgan.core.source import SampleSource, make_source
from rlgan.core.stream import DataStream
from rlgan.errors import UsageError
from rlgan.measures import distinct
from rlgan.nn import text
from rlgan.nn.text import START, TextCNN, TokenLSTM
from rlgan.registry import Registry
from rlgan.tokens import Tokens, counted, lengths_of
from rlgan_data.oracle import GATES, OracleConfig, make, read
from rlgan_generators.seqgan import SeqGAN, SeqGANConfig, half_squares
from rlgan_generators.writers import policy_gradient_loss

CPU = torch.device("cpu")
SMALL = OracleConfig(vocabulary=12, width=4, length=6, samples=32)
CONFIG = SeqGANConfig(
    batch_size=8, embedding=5, hidden=6, rollouts=3, embedding_d=4, widths=(1, 3), filters=(5, 7), precision="float32"
)
TINY = (
    "generator=seqgan data=oracle preset=none data.vocabulary=12 data.width=4 data.length=6 data.samples=32 "
    "generator.batch_size=8 generator.pretrain=2 generator.pretrain_d=1 generator.draws=1 generator.passes=1 "
    "generator.rollouts=2 generator.widths=[1,3] generator.filters=[5,7] eval.samples=20 threads=1 device=cpu"
)


def textbook() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "seqgan_textbook.py"
    spec = importlib.util.spec_from_file_location("seqgan_textbook", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(config: SeqGANConfig = CONFIG, seed: int = 0, device: torch.device = CPU) -> SeqGAN:
    torch.manual_seed(seed)
    gan = SeqGAN(make(SMALL), config, device)
    gan.policy.start(1.0)  # far from uniform
    return gan


def fixed(probabilities: list[float], end: int | None = None) -> TokenLSTM:
    """A model that draws each token from the same distribution."""
    model = TokenLSTM(len(probabilities), 2, 2, end).start(0.0)
    with torch.no_grad():
        model.out_bias.copy_(torch.tensor(probabilities).log())
    return model


def test_a_token_is_where_its_number_lies_in_the_distribution_function() -> None:
    model = fixed([0.2, 0.3, 0.5])
    uniform = torch.tensor([0.0, 0.1, 0.19, 0.21, 0.49, 0.51, 0.7, 0.9999999])
    drawn = model.draw(torch.zeros(8, 2), torch.full((8,), -1), uniform)
    assert drawn.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    # logits / 0.5: probabilities as their squares, 4, 9 and 25 of 38
    cooled = model.draw(torch.zeros(3, 2), torch.full((3,), -1), torch.tensor([3.9, 4.1, 13.1]) / 38, 0.5)
    assert cooled.tolist() == [0, 1, 2]
    torch.manual_seed(0)
    many = model.sample(torch.rand(4000, 5)).flatten().bincount() / 20_000
    assert many.tolist() == pytest.approx([0.2, 0.3, 0.5], abs=0.012)


def test_the_memory_is_an_lstm() -> None:
    torch.manual_seed(0)
    model = TokenLSTM(7, 3, 4).start(1.0)
    plain = torch.nn.LSTM(3, 4, batch_first=True)  # gates in the order i, f, g, o
    order = [0, 1, 3, 2]
    with torch.no_grad():
        for own, other in ((model.inputs, plain.weight_ih_l0), (model.recurrent, plain.weight_hh_l0)):
            other.copy_(torch.cat([own.T.chunk(4)[k] for k in order]))
        plain.bias_ih_l0.copy_(torch.cat([model.bias.chunk(4)[k] for k in order]))
        plain.bias_hh_l0.zero_()
        tokens = torch.randint(7, (5, 6))
        seen = torch.cat((torch.full((5, 1), START), tokens[:, :-1]), 1)
        logits = plain(model.embedding[seen])[0] @ model.out + model.out_bias
    expected = logits.log_softmax(-1).gather(2, tokens[..., None]).squeeze(2)
    assert torch.allclose(model.log_prob(tokens), expected, atol=1e-6)
    measured, entropy = model.measure(tokens)
    assert torch.allclose(measured, expected, atol=1e-6)
    assert torch.allclose(entropy, torch.distributions.Categorical(logits=logits).entropy(), atol=1e-6)


@pytest.mark.parametrize("end", [None, 0])
def test_probabilities_of_all_sequences_sum_to_one(end: int | None) -> None:
    torch.manual_seed(0)
    model = TokenLSTM(3, 2, 2, end).start(1.0)
    everything = torch.tensor(list(itertools.product(range(3), repeat=4)))
    possible = everything
    if end is not None:  # after an end there is nothing else
        possible = torch.stack([s for s in everything if all(b == 0 or a != 0 for a, b in itertools.pairwise(s))])
    assert float(model.measure(possible)[0].sum(1).exp().sum()) == pytest.approx(1.0, abs=1e-5)
    made = model.sample(torch.rand(50, 4))
    assert all(any(torch.equal(s, p) for p in possible) for s in made)
    # what is drawn is as frequent as it is likely
    made = model.sample(torch.rand(20_000, 4))
    share = torch.stack([(made == p).all(1).float().mean() for p in possible])
    assert torch.allclose(share, model.measure(possible)[0].sum(1).exp(), atol=0.012)


def test_a_prefix_is_kept_and_its_end_stays() -> None:
    model = fixed([0.2, 0.3, 0.5], end=0)
    made = model.sample(torch.rand(20, 5), prefix=torch.tensor([2, 1]))
    assert (made[:, :2] == torch.tensor([2, 1])).all()
    assert lengths_of(torch.tensor([[2, 0, 0], [0, 0, 0], [1, 2, 1]]), 0).tolist() == [1, 0, 3]
    assert counted(torch.tensor([[2, 0, 0], [1, 2, 1]]), 0).tolist() == [[True, True, False], [True] * 3]


def test_losses_by_hand() -> None:
    log = torch.tensor([[0.5, 0.25], [0.1, 1e-30]]).log()
    reward = torch.tensor([[1.0, 0.5], [0.2, 0.1]])
    expected = math.log(2) + 0.5 * math.log(4) + 0.2 * math.log(10) + 0.1 * math.log(1e20)
    assert float(policy_gradient_loss(log, reward)) == pytest.approx(expected)
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
        layer.bias.fill_(1.0)
    assert float(half_squares(layer).detach()) == 13.0


def test_the_policy_gradient_of_a_bias_by_hand() -> None:
    gan = small()
    gan.policy.start(0.0)  # uniform over 12 tokens
    tokens = torch.zeros(1, 6, dtype=torch.int64)
    reward = torch.tensor([[1.0, 0, 0, 0, 0, 0.5]])
    (gradient,) = torch.autograd.grad(policy_gradient_loss(gan.policy.log_prob(tokens), reward), gan.policy.out_bias)
    # reward x (p - 1) where the token is, reward x p elsewhere
    assert gradient.tolist() == pytest.approx([1.5 * (1 / 12 - 1), *[1.5 / 12] * 11])


def test_likelihood_is_a_mean_over_tokens_that_count() -> None:
    data = DataSet(torch.tensor([[1, 2, 0, 0], [2, 0, 0, 0]]).repeat(4, 1), tokens=Tokens(("", "a", "b"), "", 0))
    torch.manual_seed(0)
    gan = SeqGAN(data, SeqGANConfig(batch_size=8, widths=(1,), filters=(2,), precision="float32"), CPU)
    with torch.no_grad():
        gan.policy.start(0.0).out_bias.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    loss = gan.likelihood({"real": data.real})["loss"]
    # a, b, end and b, end: five tokens
    assert float(loss) == pytest.approx(-math.log(0.3 * 0.2 * 0.5 * 0.2 * 0.5) / 5)
    gan.policy.start(0.1)
    before = -float(gan.log_prob(data.real).sum())
    for _ in range(60):
        gan.likelihood({"real": data.real})
    assert -float(gan.log_prob(data.real).sum()) < 0.7 * before


def test_completions_and_rewards_equal_a_literal_double_loop() -> None:
    gan, plain = small(), textbook()
    tokens = gan.sample(8)
    torch.manual_seed(5)
    uniform = torch.rand(5, 3, 8, 6)
    made = gan.policy.completions(tokens, uniform)
    for keep in range(1, 6):
        for r in range(3):
            with torch.no_grad():
                assert torch.equal(made[keep - 1, r], plain.complete(gan.policy, tokens, keep, uniform[keep - 1, r]))
    assert not torch.equal(made[0, 0], made[0, 1])
    torch.manual_seed(5)
    rewards = gan.rewards(tokens)
    expected = plain.rewards(gan.policy, gan.discriminator, tokens, 3, uniform)
    assert torch.allclose(rewards, expected, atol=1e-6) and float(rewards.std()) > 1e-3
    pieces = gan.discriminator.belief(made.flatten(0, 2), rows=7)
    assert torch.allclose(pieces, gan.discriminator.belief(made.flatten(0, 2)), atol=1e-6)


def test_updates_equal_a_literal_implementation() -> None:
    """All three kinds of updates, by torch's own optimisers and clip, loops over tokens and the textbook's networks."""
    gan, plain = small(SeqGANConfig(**{**vars(CONFIG), "dropout": 0.0})), textbook()
    policy, judge, real = copy.deepcopy(gan.policy), copy.deepcopy(gan.discriminator), make(SMALL).real
    mle, gradient = (torch.optim.Adam(policy.parameters(), 1e-2) for _ in range(2))
    against = torch.optim.Adam(judge.parameters(), 1e-4)

    def log_prob(tokens: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(8, policy.size)
        token, found = torch.full((8,), START), []
        for t in range(6):
            h, c = plain.cell(policy, token, h, c)
            token = tokens[:, t]
            found.append((h @ policy.out + policy.out_bias).log_softmax(1).gather(1, token[:, None]))
        return torch.cat(found, 1)

    def step(optimiser: torch.optim.Adam, loss: torch.Tensor, max_norm: float) -> None:
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], max_norm)
        optimiser.step()

    for k in range(3):
        gan.likelihood({"real": real[8 * k : 8 * k + 8]})
        step(mle, -log_prob(real[8 * k : 8 * k + 8]).mean(), 5.0)
    for k in range(3):
        mixed, is_real = torch.cat((real[4 * k : 4 * k + 4], real[20:24].flip(1))), torch.arange(8) < 4
        gan.update({"mixed": mixed, "is_real": is_real})
        p = plain.belief(judge, mixed)
        error = -torch.where(is_real, p, 1 - p).log().mean()
        step(against, error + 0.2 * sum(w.square().sum() for w in judge.out.parameters()) / 2, math.inf)
    for k in range(3):
        torch.manual_seed(k)
        gan.improve({})
        torch.manual_seed(k)
        uniform, rollouts = torch.rand(8, 6), torch.rand(5, 3, 8, 6)
        with torch.no_grad():
            tokens = plain.complete(policy, real[:8], 0, uniform)
        reward = plain.rewards(policy, judge, tokens, 3, rollouts)
        step(gradient, -(log_prob(tokens) * reward).sum(), 5.0)
    for ours, literal in ((gan.policy, policy), (gan.discriminator, judge)):
        for a, b in zip(ours.parameters(), literal.parameters(), strict=True):
            assert torch.allclose(a, b, atol=2e-5)


def test_a_completion_ends_where_its_prefix_does() -> None:
    torch.manual_seed(0)
    model = TokenLSTM(4, 3, 3, end=0).start(1.0)
    tokens = torch.tensor([[1, 0, 0, 0], [2, 3, 1, 2]])
    made = model.completions(tokens, torch.rand(3, 50, 2, 4))
    assert (made[0, :, 0, 0] == 1).all() and made[0, :, 0, 1:].any()
    assert (made[1:, :, 0] == tokens[0]).all()
    assert (made[2, :, 1, :3] == tokens[1, :3]).all()


def test_other_rewards() -> None:
    def rewards(kind: str, seed: int = 3) -> torch.Tensor:
        gan = small(SeqGANConfig(**{**vars(CONFIG), "reward": kind}))
        tokens = gan.sample(8)
        torch.manual_seed(seed)
        return gan.rewards(tokens)

    plain, shuffled = rewards("rollout"), rewards("shuffled")
    assert torch.equal(rewards("constant"), torch.ones(8, 6))
    assert torch.equal(rewards("final"), plain[:, -1:].expand(-1, 6))
    rows = [next(i for i in range(8) if torch.equal(row, plain[i])) for row in shuffled]
    assert sorted(rows) == list(range(8)) and all(row != i for i, row in enumerate(rows))


def test_the_discriminator_by_a_naive_network() -> None:
    torch.manual_seed(0)
    net, plain = TextCNN(9, 3, (1, 2, 4), (2, 3, 4), 0.5), textbook()
    tokens = torch.randint(9, (6, 5))
    assert torch.allclose(net.belief(tokens), plain.belief(net, tokens), atol=1e-6)
    weights = torch.cat([layer.weight.detach().flatten() for layer in net.convolutions])
    assert float(weights.abs().max()) <= 0.2 and float(net.embedding.weight.detach().abs().max()) <= 1.0
    assert torch.equal(net(tokens, False), net(tokens, False)) and not torch.equal(net(tokens, True), net(tokens, True))


def test_the_discriminator_learns_and_leaves_the_generator_alone() -> None:
    gan = small(SeqGANConfig(**{**vars(CONFIG), "lr_d": 1e-2}))
    before = [p.clone() for p in gan.policy.parameters()]
    mixed = torch.cat((torch.randint(0, 6, (8, 6)), torch.randint(6, 12, (8, 6))))
    batch = {"mixed": mixed, "is_real": torch.arange(16) < 8}
    first = gan.update(batch)
    for _ in range(60):
        last = gan.update(batch)
    assert float(last["loss_d"]) < 0.5 * float(first["loss_d"]) and float(last["accuracy"]) > 0.9
    assert all(torch.equal(a, b) for a, b in zip(before, gan.policy.parameters(), strict=True))
    old = [p.clone() for p in gan.discriminator.parameters()]
    gan.improve(batch)
    assert not any(torch.equal(a, b) for a, b in zip(before, gan.policy.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(old, gan.discriminator.parameters(), strict=True))
    assert float(gan.update(batch)["reward"]) == float(gan.latest["reward"]) > 0


def test_policy_gradient_makes_rewarded_tokens_likely() -> None:
    gan = small(SeqGANConfig(**{**vars(CONFIG), "reward": "final", "batch_size": 64}))
    gan.belief = lambda tokens: (tokens == 3).float().mean(1)
    for _ in range(60):
        gan.improve({})
    assert float((gan.sample(200) == 3).float().mean()) > 0.8  # of 12 tokens


def test_likelihoods_in_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, tokens = small().policy, torch.randint(12, (20, 6))
    whole = policy.measure(tokens)
    # pieces of three sequences, whose memory is held for eight and then for as many as the logits
    for remembered in (8 * 8 * policy.size * 6, 1):
        monkeypatch.setattr(text, "PIECE", {"cpu": 3 * 12 * 6})
        monkeypatch.setattr(text, "REMEMBERED", remembered)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(policy.measure(tokens), whole, strict=True))
    assert torch.allclose(whole[0], policy.log_prob(tokens), atol=1e-6)


@pytest.mark.parametrize(
    ("device", "mode"), [("cpu", "compile"), pytest.param("cuda", "compile-graph", marks=pytest.mark.gpu)]
)
def test_a_compiled_step_of_the_discriminator_is_the_eager_one(device: str, mode: Captured) -> None:
    found = []
    for tried in ("eager", mode):
        gan = small(dataclasses.replace(CONFIG, eps_hat=True), device=torch.device(device))
        batch = {"mixed": gan.sample(8), "is_real": torch.arange(8, device=device) < 4}
        torch.manual_seed(1)
        update = capture(gan.update, tried)
        found.append(([float(update(batch)["loss_d"]) for _ in range(6)], gan.discriminator.state_dict()))
    (losses, state), (compiled_losses, compiled) = found
    assert compiled_losses == pytest.approx(losses, abs=1e-5) and losses[0] != losses[2]
    assert all(torch.allclose(state[name], compiled[name], atol=1e-5) for name in state)


def test_own_samples_are_mixed_in() -> None:
    torch.manual_seed(0)
    drawn: list[int] = []

    def against(n: int) -> torch.Tensor:
        drawn.append(n)
        return torch.arange(n)[:, None] + 100 * len(drawn)

    spec = Samples(4, against=against, passes=2)
    source = make_source(Phase("d", spec, lambda batch: {}), DataStream(DataSet(torch.arange(6)[:, None]), CPU))
    passes = [[source.next() for _ in range(3)] for _ in range(4)]
    seen = [torch.cat([batch["mixed"].flatten() for batch in one]).tolist() for one in passes]
    for k, one in enumerate(seen):
        assert sorted(one) == [*range(6), *range(100 * (k // 2 + 1), 100 * (k // 2 + 1) + 6)]
    assert seen[0] == seen[1] and seen[2] == seen[3] and [n % 100 for n in seen[1]] != [n % 100 for n in seen[2]]
    for batch in itertools.chain(*passes):
        assert torch.equal(batch["is_real"], batch["mixed"].flatten() < 100) and "real" not in batch
    assert drawn == [6, 6]


def test_data_in_its_own_order() -> None:
    source = make_source(
        Phase("mle", Samples(2, shuffle=False), lambda batch: {}), DataStream(DataSet(torch.arange(5)[:, None]), CPU)
    )
    # what is left for no whole batch begins the next pass, so that all are learned from equally often
    seen = [source.next()["real"].flatten().tolist() for _ in range(5)]
    assert seen == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]


def test_the_published_order_of_work() -> None:
    spec = Registry().get("generators", "seqgan")
    values = next(preset for preset in spec.presets if preset.name == "repo").values
    own = {key.removeprefix("generator."): value for key, value in values.items() if key.startswith("generator.")}
    config = SeqGANConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in own.items()})
    data = DataSet(torch.zeros(9_984, 20, dtype=torch.int64), tokens=Tokens(tuple(map(str, range(5_000)))))
    gan = SeqGAN(data, config, CPU)
    mle, alone, train = gan.phases()
    ((k, improve),) = train.delayed
    # 120 x 156 updates; 50 draws x 3 x 312 before the first of the generator's, 5 x 3 x 312 between two
    assert (mle.until, alone.until + k, k) == (18_720, 46_800, 4_680) and improve == gan.improve
    assert values["steps"] == 18_720 + 46_800 + 199 * 4_680
    assert 7.04e6 < sum(p.numel() for p in gan.discriminator.parameters()) < 7.06e6
    assert sum(config.filters) == 1720


def test_the_oracle_is_the_same_each_time_and_another_for_another_seed() -> None:
    torch.manual_seed(1)
    one, state = make(SMALL), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(make(SMALL).real, one.real) and one.real.shape == (32, 6)
    assert not torch.equal(make(OracleConfig(**{**vars(SMALL), "seed": 1})).real, one.real)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def arrays(v: int = 12, w: int = 4) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(7)
    shapes = {"embedding": (v, w), "W_out": (w, v), "b_out": (v,)}
    shapes |= {f"{kind}_{gate}": (w,) if kind == "b" else (w, w) for kind in "WUb" for gate in GATES}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def test_an_oracle_from_a_file_has_the_files_probabilities(tmp_path: Path) -> None:
    a = arrays()
    save_file(a, tmp_path / "oracle.safetensors")
    config = OracleConfig(**{**vars(SMALL), "path": tmp_path / "oracle.safetensors"})
    tokens = make(config).real
    h = c = torch.zeros(32, 4)
    x, expected = a["embedding"][torch.zeros(32, dtype=torch.int64)], []
    for t in range(6):
        i, f, o, g = (x @ a[f"W_{k}"] + h @ a[f"U_{k}"] + a[f"b_{k}"] for k in GATES)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        expected.append((h @ a["W_out"] + a["b_out"]).log_softmax(1).gather(1, tokens[:, t : t + 1]))
        x = a["embedding"][tokens[:, t]]
    oracle = read(tmp_path / "oracle.safetensors", config)
    assert torch.allclose(oracle.measure(tokens)[0], torch.cat(expected, 1), atol=1e-5)


def test_a_wrong_oracle_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "oracle.safetensors"
    config = OracleConfig(**{**vars(SMALL), "path": path})
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        make(config)
    path.write_bytes(b"no arrays")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        make(config)
    save_file({**arrays(), "U_o": torch.zeros(4, 5)}, path)
    said = r"has U_o of \(4, 5\), and an oracle of data.vocabulary=12 and data.width=4 has \(4, 4\): write the sizes"
    with pytest.raises(UsageError, match=said):
        make(config)
    save_file({**arrays(), "W_f": torch.full((4, 4), torch.nan)}, path)
    with pytest.raises(UsageError, match=r"has numbers in W_f that are not finite: write the file anew"):
        make(config)
    save_file({**arrays(), "W_out": torch.full((4, 12), 3e38), "b_out": torch.full((12,), 3e38)}, path)
    with pytest.raises(UsageError, match=r"gives probabilities that are no numbers: its arrays are too large"):
        make(config)
    save_file({name: array for name, array in arrays().items() if name != "b_c"}, path)
    with pytest.raises(UsageError, match="has no array b_c; an oracle has embedding, "):
        make(config)


def test_the_judge_by_hand() -> None:
    class Uniform:
        def sample(self, n: int) -> torch.Tensor:
            return torch.randint(12, (n, 6))

        def log_prob(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.full(tokens.shape, -math.log(12))

    class Replay(Uniform):
        def sample(self, n: int) -> torch.Tensor:
            return data.real[:n]

    torch.manual_seed(0)
    data = make(OracleConfig(**{**vars(SMALL), "samples": 500}))
    judge = data.judge(CPU)
    one = data.real[0].tolist()

    class Same(Uniform):
        def sample(self, n: int) -> torch.Tensor:
            return data.real[:1].repeat(n, 1)

    row, copied = judge.row(Uniform(), 400), judge.row(Replay(), 400)
    assert row["nll_test"] == pytest.approx(math.log(12)) == -judge.rank(row)
    who = {each["who"]: each for each in row["baselines"]}
    assert row["nll_oracle"] == pytest.approx(who["uniform tokens"]["nll_oracle"], abs=0.15)
    assert who["held-out sequences"]["nll_oracle"] == pytest.approx(row["entropy"], abs=0.1)
    alike = judge.row(Same(), 400)
    assert alike["self_bleu_4"] == pytest.approx(1.0) and alike["distinct_1"] == pytest.approx(len(set(one)) / 2_400)
    assert copied["distinct_2"] == distinct(data.real[:400], 2) and 0 < copied["self_bleu_4"] < 1
    assert judge.row(Same(), 1)["self_bleu_4"] is None
    assert copied["copy_rate"] == 1.0 and copied["nll_oracle"] == pytest.approx(row["entropy"], abs=0.1)
    order = ["bigram sampler", "unigram sampler", "uniform tokens"]
    assert [who[name]["nll_oracle"] for name in order] == sorted(who[name]["nll_oracle"] for name in order)
    assert f"NLL_oracle {row['nll_oracle']:.3f} over 400 samples" in judge.sentence(row)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_released_oracle() -> None:
    """Set RLGAN_SEQGAN_ORACLE to a file of the released arrays."""
    path = os.environ.get("RLGAN_SEQGAN_ORACLE")
    if not path:
        pytest.skip("RLGAN_SEQGAN_ORACLE names no file")
    judge = make(OracleConfig(path=Path(path))).judge(CPU)
    found = {score.who: score.value for score in judge.scores}
    # 10.32 is of tokens whose counts were smoothed by adding one; plain counts give 10.29
    counts = torch.cat((judge.train.flatten(), torch.arange(5_000)))
    rng = torch.Generator().manual_seed(3)
    found["unigram, add-one"] = judge.nll(counts[torch.randint(len(counts), judge.test.shape, generator=rng)])
    print(found)
    assert found["oracle's entropy"] == pytest.approx(5.76, abs=0.02)
    assert found["uniform tokens"] == pytest.approx(11.42, abs=0.02)
    assert found["unigram, add-one"] == pytest.approx(10.32, abs=0.02)
    assert found["unigram sampler"] == pytest.approx(10.29, abs=0.02)
    assert found["bigram sampler"] == pytest.approx(8.28, abs=0.03)


def test_a_run_is_judged_and_sampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["run", *TINY.split(), "steps=40", f"dir={folder}"]) == 0
    assert "the oracle's entropy is" in capsys.readouterr().err
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("phase") for row in rows] == ["pretrain", "pretrain-d", "train", None]
    assert [row["step"] for row in rows] == [8, 16, 40, 40] and rows[2]["reward"] > 0
    assert (folder / "samples" / "step_40.txt").read_text().count("\n") == 64
    assert main(["sample", str(folder), "n=3", "prefix=5 7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith("5 7 ") and len(line.split()) == 6 for line in lines)
    assert main(["sample", str(folder), "n=3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 3
    assert main(["sample", str(folder), "n=2", f"out={tmp_path / 'made.txt'}"]) == 0
    assert len((tmp_path / "made.txt").read_text().splitlines()) == 2
    assert main(["eval", str(folder), "samples=30", "--json"]) == 0
    found = json.loads(capsys.readouterr().out[len(str(tmp_path / "made.txt")) + 1 :])
    assert found["samples"] == 30 and "vocabulary=12" in found["protocol"]
    assert main(["sample", str(folder), "prefix=5 12"]) == 2
    assert "'12' is none of the 12 tokens of the data set" in capsys.readouterr().err
    assert main(["sample", str(folder), "prefix=1 2 3 4 5 6 7"]) == 2
    assert "a prefix of 7 tokens is longer than a sequence, which has 6" in capsys.readouterr().err


@pytest.mark.parametrize("stopped", [5, 11, 21, 24], ids=["pretrain", "pretrain-d", "train", "after a policy gradient"])
def test_a_run_stopped_in_any_phase_equals_one_left_alone(
    tmp_path: Path, stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TINY.split(), "steps=33", "record.every=2", "eval.every=9", "checkpoint.every=1000"]
    assert main(["run", *words, f"dir={tmp_path / 'base'}"]) == 0
    given = SampleSource.next

    def next_batch(self: SampleSource) -> dict[str, torch.Tensor]:
        batch = given(self)
        if self.stream.rows == stopped:
            os.kill(os.getpid(), signal.SIGINT)
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(SampleSource, "next", next_batch)
        assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == 130
    assert newest(tmp_path / "run").name == f"step_{stopped}"
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert_equal(tmp_path / "run", tmp_path / "base", 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("generator=seqgan data=digits", "seqgan writes sequences of tokens, this data set has samples of (1, 28, 28)"),
        (
            TINY.replace("[1,3]", "[2,7]"),
            "sequences have 6 tokens and a filter spans 7: write generator.widths=[...]",
        ),
        (TINY.replace("[1,3]", "[1]"), "widths and filters are lists of the same length"),
        (f"{TINY} generator.temperature=0", "generator.temperature=0"),
        (TINY.replace("data.length=6", "data.length=3"), "data.length=3: must be greater than or equal to 4"),
        (
            TINY.replace("generator.batch_size=8", "generator.batch_size=33"),
            "a batch of 33 is more than the 32 samples of the data set: write generator.batch_size=32 or less",
        ),
        ("generator=dcgan data=oracle data.vocabulary=9 data.samples=8", "dcgan makes images with sides of 4, 8, 12"),
    ],
)
def test_what_makes_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert main(["run", *words.split(), f"dir={tmp_path / 'x'}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()

"""Updates of SeqGAN beside the authors' own code, from the same weights, on the same batches.

    git clone https://github.com/LantaoYu/SeqGAN CHECKOUT
    pip install tensorflow-cpu
    python benchmarks/seqgan_authors.py CHECKOUT

Their generator, rollout and discriminator are read from the checkout and run by TensorFlow 2's layer for version 1;
names that moved are replaced. Networks of the published protocol, float32, without dropout, whose random
numbers the two do not share. Prints how far an average weight moved, and how far the two are apart then, with Adam's
epsilon as TensorFlow has it and as torch has it; the rewards of one batch are compared too. At last the discriminator
learns the same batches over and over with dropout, from the same weights: the mean loss of each pass, of theirs once
and of ours twice. Saves docs/results/seqgan_authors.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import machine
import numpy as np
import tensorflow.compat.v1 as tf
import torch
from seqgan import protocol
from torch import Tensor

from rlgan.core.protocols import DataSet
from rlgan.tokens import Tokens
from rlgan_generators.seqgan import SeqGAN, SeqGANConfig, half_squares

VOCABULARY, LENGTH, BATCH, ROLLOUTS = 5_000, 20, 64, 4
SEQUENCES, PASSES = 2_496, 15
UPDATES = {"discriminator": 40, "likelihood": 20, "policy gradient": 20}
RENAMED = {
    "import tensorflow as tf": "import tensorflow.compat.v1 as tf",
    "control_flow_ops.while_loop": "tf.while_loop",
}


def module(checkout: Path, name: str) -> Any:
    text = (checkout / f"{name}.py").read_text(encoding="utf-8")
    for old, new in RENAMED.items():
        text = text.replace(old, new)
    found = ModuleType(name)
    exec(compile(text, f"{name}.py", "exec"), vars(found))
    return found


def published(eps_hat: bool) -> SeqGANConfig:
    """The settings of the preset ``repo``, without dropout and with fewer rollouts."""
    return dataclasses.replace(protocol(ROLLOUTS, "float32"), dropout=0.0, eps_hat=eps_hat)


class Theirs:
    """The authors' networks, and what they do in a fixed order of updates, each from where the last one ended."""

    def __init__(self, checkout: Path, config: SeqGANConfig, seed: int) -> None:
        tf.disable_v2_behavior()
        tf.set_random_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.g = module(checkout, "generator").Generator(
            VOCABULARY, BATCH, config.embedding, config.hidden, LENGTH, 0, config.lr
        )
        self.d = module(checkout, "discriminator").Discriminator(
            LENGTH, 2, VOCABULARY, config.embedding_d, list(config.widths), list(config.filters), config.decay
        )
        self.rollout = module(checkout, "rollout").ROLLOUT(self.g, 0.8)
        self.widths = config.widths
        self.session = tf.Session()
        self.restart()
        self.popularity = self.rng.dirichlet(np.full(VOCABULARY, 0.05))

    def restart(self) -> None:
        """Draw all weights anew."""
        self.session.run(tf.global_variables_initializer())

    def policy(self) -> dict[str, Tensor]:
        """Weights of the generator as ours are laid out."""
        values = [torch.from_numpy(value.copy()) for value in self.session.run(self.g.g_params)]
        gates = [torch.cat(values[1 + kind : 13 : 3], -1) for kind in range(3)]  # of W, U and b, each i, f, o, c
        return dict(
            zip(
                ("embedding", "inputs", "recurrent", "bias", "out", "out_bias"),
                [values[0], *gates, *values[13:]],
                strict=True,
            )
        )

    def discriminator(self) -> dict[str, Tensor]:
        """The same of the discriminator."""
        names = [p.name.removeprefix("discriminator/").removesuffix(":0") for p in self.d.params]
        values = {
            name: torch.from_numpy(value.copy())
            for name, value in zip(names, self.session.run(self.d.params), strict=True)
        }
        found = {"embedding.weight": values["embedding/W"]}
        for k, width in enumerate(self.widths):
            found[f"convolutions.{k}.weight"] = values[f"conv-maxpool-{width}/W"].flatten(0, 2).T
            found[f"convolutions.{k}.bias"] = values[f"conv-maxpool-{width}/b"]
        for ours, kind in (("weight", "Matrix"), ("bias", "Bias")):
            both = [next(v for n, v in values.items() if part in n and kind in n) for part in ("lin_0", "gate_0")]
            found[f"highway.{ours}"] = torch.cat(both)
        return {**found, "out.weight": values["output/W"].T, "out.bias": values["output/b"]}

    def real(self, n: int) -> np.ndarray:
        return self.rng.choice(VOCABULARY, size=(n, LENGTH), p=self.popularity)

    def made(self) -> np.ndarray:
        return self.g.generate(self.session)

    def update(self, part: str) -> dict[str, Tensor]:
        """One of theirs, and the batch that ours is given then."""
        if part == "discriminator":
            mixed = np.concatenate((self.real(BATCH // 2), self.made()[: BATCH // 2]))
            is_real = np.arange(BATCH) < BATCH // 2
            self.learn(mixed, is_real, 1.0)
            return {"mixed": torch.from_numpy(mixed).long(), "is_real": torch.from_numpy(is_real)}
        if part == "likelihood":
            real = self.real(BATCH)
            self.g.pretrain_step(self.session, real)
            return {"real": torch.from_numpy(real).long()}
        tokens = self.made()
        # of many sizes, above the clip and below it
        reward = (self.rng.random(tokens.shape) ** 8 * 10.0 ** self.rng.integers(-4, 1)).astype(np.float32)
        self.session.run(self.g.g_updates, {self.g.x: tokens, self.g.rewards: reward})
        return {"tokens": torch.from_numpy(tokens).long(), "reward": torch.from_numpy(reward)}

    def learn(self, mixed: np.ndarray, is_real: np.ndarray, keep: float) -> float:
        """One update of the discriminator; its loss before."""
        fed = {self.d.input_x: mixed, self.d.input_y: np.stack((~is_real, is_real), 1), self.d.dropout_keep_prob: keep}
        return float(self.session.run([self.d.train_op, self.d.loss], fed)[1])

    def rewards(self, tokens: np.ndarray) -> Tensor:
        return torch.from_numpy(self.rollout.get_reward(self.session, tokens, ROLLOUTS, self.d))


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor], start: dict[str, Tensor]) -> dict[str, float]:
    """Means over all weights of how far theirs moved and how far ours are from them."""
    pairs = [((theirs[k] - start[k]).abs().flatten(), (ours[k] - theirs[k]).abs().flatten()) for k in start]
    moved, off = (torch.cat(part) for part in zip(*pairs, strict=True))
    return {"moved": float(moved.mean()), "apart": float(off.mean()), "most_apart": float(off.max())}


def passes(theirs: Theirs, config: SeqGANConfig, data: DataSet) -> dict[str, list[list[float]]]:
    """Mean losses of the discriminator over passes, with dropout: one run of theirs and two of ours.

    What it shall tell apart is of one distribution, so that it can only learn it by heart.
    """
    theirs.restart()
    both = np.concatenate([theirs.made() for _ in range(2 * SEQUENCES // BATCH)])
    batches = [(both[rows], rows < SEQUENCES) for rows in theirs.rng.permutation(len(both)).reshape(-1, BATCH)]
    start = theirs.discriminator()
    found = {"theirs": [[]], "ours": [[], []]}
    for _ in range(PASSES):
        losses = [theirs.learn(mixed, is_real, 1 - config.dropout) for mixed, is_real in batches]
        found["theirs"][0].append(float(np.mean(losses)))
    for run in found["ours"]:
        gan = SeqGAN(data, config, torch.device("cpu"))
        gan.discriminator.load_state_dict(start)
        for _ in range(PASSES):
            losses = []
            for mixed, is_real in batches:
                rest = config.decay * float(half_squares(gan.discriminator.out).detach())
                batch = {"mixed": torch.from_numpy(mixed).long(), "is_real": torch.from_numpy(is_real)}
                losses.append(float(gan.update(batch)["loss_d"]) + rest)
            run.append(float(np.mean(losses)))
    return found


def learner(gan: SeqGAN, part: str) -> torch.nn.Module:
    return gan.discriminator if part == "discriminator" else gan.policy


def main() -> None:
    """Compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tokens = Tokens(tuple(map(str, range(VOCABULARY))))
    data = DataSet(torch.zeros(BATCH, LENGTH, dtype=torch.int64), tokens=tokens)
    sides = {eps_hat: SeqGAN(data, published(eps_hat), torch.device("cpu")) for eps_hat in (True, False)}
    theirs = Theirs(given.checkout, published(True), given.seed)
    torch.manual_seed(given.seed)
    result: dict[str, Any] = {}
    for part, count in UPDATES.items():
        weights = theirs.discriminator if part == "discriminator" else theirs.policy
        start = weights()
        for gan in sides.values():  # each part from the same weights
            learner(gan, part).load_state_dict(start)
        for _ in range(count):
            batch = theirs.update(part)
            for gan in sides.values():
                if part == "policy gradient":
                    gan.reinforce(gan.policy_adam, batch["tokens"], batch["reward"])
                else:
                    (gan.update if part == "discriminator" else gan.likelihood)(batch)
        for eps_hat, gan in sides.items():
            found = apart(learner(gan, part).state_dict(), weights(), start)
            result[f"{part}, eps_hat={str(eps_hat).lower()}"] = {"updates": count, **found}
            print(
                f"{count} updates, {part}, eps_hat={str(eps_hat).lower()}: weights moved by {found['moved']:.2e}, "
                f"then are {found['apart']:.2e} apart ({found['apart'] / found['moved']:.2%})"
            )
    gan = sides[True]
    gan.policy.load_state_dict(theirs.policy())
    gan.discriminator.load_state_dict(theirs.discriminator())
    sequences = theirs.made()
    expected = torch.stack([theirs.rewards(sequences) for _ in range(2)])
    ours = torch.stack([gan.rewards(torch.from_numpy(sequences).long()) for _ in range(2)])
    last = float((ours[..., -1] - expected[..., -1]).abs().max())
    within, between = ((a[0] - b[1])[:, :-1].abs().mean() for a, b in ((expected, expected), (ours, expected)))
    result["rewards"] = {"last_token": last, "two_of_theirs": float(within), "ours_and_theirs": float(between)}
    print(
        f"rewards: of a whole sequence {last:.1e} apart at most; by completions, which are random, two calls of theirs"
    )
    print(f"are {within:.4f} apart on average, one of ours and one of theirs {between:.4f}")
    curves = passes(theirs, dataclasses.replace(published(True), dropout=protocol(ROLLOUTS, "float32").dropout), data)
    for who, runs in curves.items():
        for run in runs:
            print(f"discriminator with dropout, {who}: loss by passes", *(f"{loss:.3f}" for loss in run))
    result["passes"] = curves
    versions = {"tensorflow": tf.__version__, "python": sys.version.split()[0]}
    print(machine.save("seqgan_authors", "repo", {**result, "versions": versions, "machine": machine.describe()}))


if __name__ == "__main__":
    main()

"""Sequences of an oracle: an LSTM with random weights, whose exact probabilities say how good samples are.

The synthetic task of SeqGAN (Yu et al. 2017): the oracle's arrays are N(0, 1), drawn anew by seed or read from a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlgan.core.protocols import DataSet
from rlgan.datasets import fingerprint
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.measures import bleu, copy_rate, counting_sampler, distinct
from rlgan.nn.text import TokenLSTM
from rlgan.specs import DataSpec, Score
from rlgan.tokens import Tokens

GATES = ("i", "f", "o", "c")
COPIED = 4
"""Length of the n-grams whose copies are counted, and of the longest in self-BLEU."""
CHECKED = 64
"""Sequences whose probabilities are looked at, where the arrays are a file's."""
ALIKE = 1_000
"""Samples that are held against one another."""


@dataclass(frozen=True)
class OracleConfig:
    """Settings of the oracle."""

    path: Path | None = None
    """File of 15 arrays (safetensors): embedding, W_i, U_i, b_i, the same for f, o and c, W_out, b_out; none = the seed
    draws them."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Draws the arrays and the sequences: the data set is the same in every run."""
    vocabulary: Annotated[int, Gt(1)] = 5_000
    """Tokens."""
    width: Annotated[int, Gt(0)] = 32
    """Length of its embedding and of its memory."""
    length: Annotated[int, Ge(COPIED)] = 20
    """Tokens of a sequence; its copied 4-grams are counted."""
    samples: Annotated[int, Gt(1)] = 9_984
    """Sequences to learn from; as many are held out."""


def make(config: OracleConfig) -> DataSet:
    """Draw sequences (M, L) of the oracle.

    Raises:
        UsageError: the file is not an oracle of these sizes.
    """
    rng = torch.Generator().manual_seed(config.seed)
    oracle = read(config.path, config) if config.path else TokenLSTM(config.vocabulary, config.width, config.width)
    if not config.path:
        oracle.start(1.0, rng)
    train, test = oracle.sample(torch.rand(2 * config.samples, config.length, generator=rng)).chunk(2)
    if config.path and not oracle.measure(train[:CHECKED])[0].isfinite().all():
        raise UsageError(f"data.path={config.path} gives probabilities that are no numbers: its arrays are too large")
    drawn = fingerprint(config.path.read_bytes()) if config.path else "drawn"
    sizes = f"vocabulary={config.vocabulary} width={config.width} length={config.length} samples={config.samples}"
    return DataSet(
        train,
        protocol=f"{drawn} seed={config.seed} {sizes}",
        tokens=Tokens(tuple(map(str, range(config.vocabulary)))),
        judge=lambda device: OracleJudge(oracle.to(device), train.to(device), test.to(device)),
    )


def read(path: Path, config: OracleConfig) -> TokenLSTM:
    """The oracle in a file of arrays.

    Raises:
        UsageError: it cannot be read, or an array is missing or has another shape.
    """
    v, w = config.vocabulary, config.width
    shapes: dict[str, tuple[int, ...]] = {"embedding": (v, w), "W_out": (w, v), "b_out": (v,)}
    shapes |= {f"{kind}_{gate}": (w,) if kind == "b" else (w, w) for kind in "WUb" for gate in GATES}
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            arrays = {name: file.get_tensor(name) for name in shapes if name in names}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"data.path={path} cannot be read as safetensors: {error}") from error
    for name, shape in shapes.items():
        if name not in arrays:
            raise UsageError(f"data.path={path} has no array {name}; an oracle has {', '.join(shapes)}")
        if (found := tuple(arrays[name].shape)) != shape:
            raise UsageError(
                f"data.path={path} has {name} of {found}, and an oracle of data.vocabulary={v} and data.width={w} has "
                f"{shape}: write the sizes of the file"
            )
        if not arrays[name].isfinite().all():
            raise UsageError(f"data.path={path} has numbers in {name} that are not finite: write the file anew")
    oracle = TokenLSTM(v, w, w)
    parts = {
        "embedding": arrays["embedding"],
        "inputs": torch.cat([arrays[f"W_{gate}"] for gate in GATES], 1),
        "recurrent": torch.cat([arrays[f"U_{gate}"] for gate in GATES], 1),
        "bias": torch.cat([arrays[f"b_{gate}"] for gate in GATES]),
        "out": arrays["W_out"],
        "out_bias": arrays["b_out"],
    }
    oracle.load_state_dict({name: part.float() for name, part in parts.items()})
    return oracle


class OracleJudge:
    """Satisfies Judge. All figures are nats for a token.

    ``nll_oracle`` (of samples, by the oracle) is low where samples are likely, even if they are all alike;
    ``nll_test`` (of held-out sequences, by the generator) is high where it forgot some. Neither says enough alone.
    """

    drawn = "nll_oracle"
    plane = ("nll_test", "nll_oracle")

    def __init__(self, oracle: TokenLSTM, train: Tensor, test: Tensor) -> None:
        self.oracle, self.train, self.test = oracle, train, test

    def nll(self, tokens: Tensor) -> float:
        """The oracle's mean negative log probability of a token of sequences (n, L)."""
        return -float(self.oracle.measure(tokens)[0].double().mean())

    @cached_property
    def entropy(self) -> float:
        """The oracle's entropy for a token: that of each next token, which is exact, over the held-out sequences."""
        return float(self.oracle.measure(self.test)[1].double().mean())

    @cached_property
    def baselines(self) -> list[dict[str, Any]]:
        """What sequences that no network made reach, as many as are held out."""
        rng = torch.Generator(self.test.device).manual_seed(0)
        n, length = self.test.shape
        uniform = torch.rand(n, length, device=self.test.device, generator=rng) * self.oracle.vocabulary
        orders = {"unigram sampler": 1, "bigram sampler": 2, "trigram sampler": 3}
        counted = {name: counting_sampler(self.train, order, n, rng) for name, order in orders.items()}
        made = {"uniform tokens": uniform.long(), **counted, "held-out sequences": self.test}
        return [{"who": name, "nll_oracle": self.nll(rows), **self.variety(rows)} for name, rows in made.items()]

    @property
    def scores(self) -> tuple[Score, ...]:
        """The entropy, and what samplers that only count reach."""
        how = "computed with the run's oracle"
        found = {each["who"]: each["nll_oracle"] for each in self.baselines[:-1]}
        return tuple(Score(name, value, how) for name, value in {"oracle's entropy": self.entropy, **found}.items())

    @property
    def points(self) -> dict[str, tuple[float, ...]]:
        """The oracle itself; samplers that count give pairs that they never saw no probability, and are lines."""
        found = {each["who"]: (each["nll_oracle"],) for each in self.baselines[1:-1]}
        return {"the oracle": (self.entropy, self.entropy), **found}

    def variety(self, samples: Tensor) -> dict[str, float | None]:
        """Share of the 4-grams of samples that the training set has too; self-BLEU and distinct n-grams of the first
        ``ALIKE``, since these depend on how many they are of. A single one has no self-BLEU.
        """
        few = samples[:ALIKE]
        return {
            "copy_rate": copy_rate(samples, self.train, order=COPIED),
            f"self_bleu_{COPIED}": bleu(few, None, COPIED)[-1] if len(few) > 1 else None,
            **{f"distinct_{order}": distinct(few, order) for order in (1, 2)},
        }

    def row(self, generator: Any, n: int) -> dict[str, Any]:
        """Both likelihoods, what is copied and how alike samples are, beside the oracle's entropy and the baselines."""
        samples = generator.sample(n)
        return {
            "nll_oracle": self.nll(samples),
            "nll_test": -float(generator.log_prob(self.test).double().mean()),
            **self.variety(samples),
            "entropy": self.entropy,
            "copy_rate_test": self.baselines[-1]["copy_rate"],
            "samples": n,
            "baselines": self.baselines,
        }

    def rank(self, row: dict[str, Any]) -> float:
        """The likelihood of held-out sequences: the one that cannot be improved by samples that are all alike."""
        return -float(row["nll_test"])

    def sentence(self, row: dict[str, Any]) -> str:
        """Say what was found, with what mere counting reaches."""
        bigram = next(each for each in row["baselines"] if each["who"] == "bigram sampler")
        return (
            f"NLL_oracle {row['nll_oracle']:.3f} over {row['samples']:,} samples (the oracle's entropy is "
            f"{row['entropy']:.3f}, counting bigrams gives {bigram['nll_oracle']:.3f}), NLL_test "
            f"{row['nll_test']:.3f}, {row['copy_rate']:.1%} of 4-grams copied (held-out sequences "
            f"{row['copy_rate_test']:.1%})"
        )


@hookimpl
def rlgan_specs() -> Iterable[DataSpec]:
    """The oracle."""
    yield DataSpec("oracle", make, OracleConfig, "sequences of a random LSTM with known probabilities", tags=("text",))

"""Lines of a file as data, and the measures of text: equal to nltk's and to plain counting."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch import Tensor

from rlgan.cli.main import main
from rlgan.core.protocols import DataSet
from rlgan.errors import UsageError
from rlgan.measures import bleu, copy_rate, counting_sampler, distinct
from rlgan_data.lines import LinesConfig, LinesJudge, make

CPU = torch.device("cpu")
TINY = (
    "generator=seqgan steps=30 generator.batch_size=4 generator.pretrain=2 generator.pretrain_d=1 generator.draws=1 "
    "generator.passes=1 generator.rollouts=2 generator.widths=[1,2] generator.filters=[3,3] eval.samples=20 threads=1"
)


def test_a_form_feed_ends_no_line(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("a b\x0cc\u2028d\r\ne f\rg".encode())
    data = make(LinesConfig(level="char"), str(tmp_path / "lines.txt"))
    assert data.tokens and data.tokens.text(data.real) == ["a b\x0cc\u2028d", "e f"]


def sentences(n: int, length: int, words: int, seed: int, end: int | None = 0) -> Tensor:
    """Random sequences; with an end, some of them are short or empty, and none holds an end inside."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, words, (n, length), generator=rng)
    if end is not None:
        cut = torch.randint(0, length + 1, (n,), generator=rng)
        tokens[torch.arange(length) >= cut[:, None]] = end
    return tokens


def plain(tokens: Tensor, end: int | None = 0) -> list[list[int]]:
    return [list(itertools.takewhile(lambda token: token != end, row)) for row in tokens.tolist()]


@pytest.mark.parametrize("end", [0, None])
@pytest.mark.parametrize("words", [4, 30])
def test_bleu_is_nltks(words: int, end: int | None) -> None:
    score = pytest.importorskip("nltk.translate.bleu_score")
    smooth = score.SmoothingFunction().method1
    made, references = sentences(25, 8, words, 0, end), sentences(40, 8, words, 1, end)
    ours, own = bleu(made, references, 5, end), bleu(made, None, 5, end)
    hypotheses, others = plain(made, end), plain(references, end)
    for k, got, got_own in zip(range(2, 6), ours, own, strict=True):
        weights = (1 / k,) * k
        expected = fmean(score.sentence_bleu(others, h, weights, smooth) if h else 0.0 for h in hypotheses)
        assert got == pytest.approx(expected, abs=1e-9) and got > 0
        against = [hypotheses[:i] + hypotheses[i + 1 :] for i in range(len(hypotheses))]
        pairs = zip(against, hypotheses, strict=True)
        expected = fmean(score.sentence_bleu(rest, h, weights, smooth) if h else 0.0 for rest, h in pairs)
        assert got_own == pytest.approx(expected, abs=1e-9) and got_own > 0


def test_bleu_by_hand() -> None:
    # a b c against a b d: 2 of 3 words, 1 of 2 pairs
    made, reference = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 4]])
    assert bleu(made, reference, 2)[0] == pytest.approx(math.sqrt(2 / 3 / 2))
    # a alone against a b d: exp(1 - 3), and no pair: 0.1 of 1
    assert bleu(torch.tensor([[1, 0, 0]]), reference, 2, 0)[0] == pytest.approx(math.exp(-2) * math.sqrt(0.1))
    # twice the same is its own reference, once it is not
    twice = torch.tensor([[1, 2, 3], [1, 2, 3], [4, 5, 6]])
    assert bleu(twice, None, 2)[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_copies_and_distinct_ngrams_by_counting(order: int) -> None:
    util = pytest.importorskip("nltk.util")
    made, corpus = sentences(30, 7, 4, 0), sentences(20, 7, 4, 1)
    found = [gram for row in plain(made) for gram in util.ngrams(row, order)]
    known = {gram for row in plain(corpus) for gram in util.ngrams(row, order)}
    assert copy_rate(made, corpus, 0, order) == pytest.approx(sum(gram in known for gram in found) / len(found))
    assert distinct(made, order, 0) == pytest.approx(len(set(found)) / len(found))
    assert copy_rate(corpus, corpus, 0, order) == 1.0
    assert copy_rate(torch.zeros(3, 7, dtype=torch.int64), corpus, 0, order) == 0.0


def test_counting_samplers_follow_the_corpus() -> None:
    corpus, rng = sentences(60, 6, 5, 0, None), torch.Generator().manual_seed(0)
    for order in (2, 3):
        made = counting_sampler(corpus, order, 3000, rng)
        known = {tuple(row[i : i + order]) for row in corpus.tolist() for i in range(6 - order + 1)}
        seen = Counter(tuple(row[i : i + order]) for row in made.tolist() for i in range(6 - order + 1))
        # a context that only ends sequences has no successor, so a shorter one is taken
        ends = {gram[:-1] for gram in known}
        assert all(gram in known or gram[:-1] not in ends for gram in seen)
    # how often b follows a, given a
    pairs = Counter((a, b) for row in corpus.tolist() for a, b in itertools.pairwise(row))
    made = counting_sampler(corpus, 2, 20_000, rng)
    drawn = Counter((a, b) for row in made.tolist() for a, b in itertools.pairwise(row))
    for a, b in itertools.product(range(1, 5), repeat=2):
        share, expected = (t[a, b] / sum(t[a, c] for c in range(1, 5)) for t in (drawn, pairs))
        assert share == pytest.approx(expected, abs=0.02)
    first = torch.stack([(made[:, 0] == k).float().mean() for k in range(1, 5)])
    expected = torch.stack([(corpus[:, 0] == k).float().mean() for k in range(1, 5)])
    assert torch.allclose(first, expected, atol=0.02)
    tokens = counting_sampler(corpus, 1, 5000, rng).flatten().bincount(minlength=5) / 30_000
    assert torch.allclose(tokens, corpus.flatten().bincount(minlength=5) / corpus.numel(), atol=0.02)


def test_counting_samplers_end_as_the_corpus_does() -> None:
    """A long line among short ones: what fills the short ones up is not counted."""
    corpus = torch.zeros(9, 20, dtype=torch.int64)
    corpus[:8, :2] = torch.tensor([1, 2])
    corpus[8, :19] = 3
    # tokens before an end: 8 * 2 + 19; ends: 9
    made = counting_sampler(corpus, 1, 20_000, torch.Generator().manual_seed(0), end=0)
    lengths = (made != 0).cumprod(1).sum(1)
    assert (made[torch.arange(20) >= lengths[:, None]] == 0).all()
    go_on = 35 / 44
    assert float(lengths.double().mean()) == pytest.approx(sum(go_on**k for k in range(1, 21)), rel=0.03)
    pairs = counting_sampler(corpus, 2, 1000, torch.Generator().manual_seed(0), end=0)
    short = pairs[pairs[:, 0] == 1]
    assert len(short) > 700 and (short[:, :3] == torch.tensor([1, 2, 0])).all() and not short[:, 3:].any()


def data(tmp_path: Path, text: str, **settings: object) -> DataSet:
    path = tmp_path / "lines.txt"
    path.write_text(text, encoding="utf-8")
    return make(LinesConfig(**settings), str(path))


def test_words_and_characters(tmp_path: Path) -> None:
    text = "the cat sat\n\n  the   dog\nsat\nthe cat\n"
    found = data(tmp_path, text, held_out=4)
    assert found.tokens is not None and found.tokens.words == ("", "cat", "dog", "sat", "the")
    assert found.real.tolist() == [[4, 1, 3], [4, 2, 0], [3, 0, 0]]
    assert found.tokens.text(found.real) == ["the cat sat", "the dog", "sat"]
    assert found.tokens.read("dog sat").tolist() == [2, 3]
    judge = found.judge(CPU)
    assert isinstance(judge, LinesJudge) and judge.test.tolist() == [[4, 1, 0]]
    letters = data(tmp_path, "床前\n明月光\n", level="char", length=4)
    assert letters.real.shape == (1, 4) and letters.tokens.text(letters.real) == ["床前"]
    assert letters.tokens.read("光明").tolist() == [letters.tokens.words.index(c) for c in "光明"]
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbfthe cat\nthe dog\n")  # a byte order mark is no part of a word
    assert make(LinesConfig(), str(marked)).tokens.words == ("", "cat", "dog", "the")
    assert found.protocol.endswith("level=word lines=4 held_out=1 length=3")


def test_likelihood_counts_the_end_of_a_line_and_nothing_after_it(tmp_path: Path) -> None:
    judge = data(tmp_path, "a a b\nb\na b\n", held_out=3).judge(CPU)

    class Third:
        def sample(self, n: int) -> Tensor:
            return judge.train.repeat(n, 1)[:n]

        def log_prob(self, tokens: Tensor) -> Tensor:
            assert tokens.tolist() == [[1, 2, 0]]
            return torch.tensor([[-1.0, -2.0, -6.0]])

    row = judge.row(Third(), 10)
    assert row["nll_test"] == 3.0 == -judge.rank(row)
    # distinct n-grams of two samples, a a b and b: as many as samplers are judged by where one line is held out
    assert row["copy_rate"] is None and row["distinct_1"] == pytest.approx(2 / 4)
    assert {each["who"] for each in row["baselines"]} >= {"bigram sampler", "held-out lines"}
    # against all held-out lines, itself among them, each would have a BLEU of 1
    real = row["baselines"][-1]
    assert real["who"] == "held-out lines" and real["bleu_2"] == real["self_bleu_2"]
    assert "NLL_test 3.000 nats a token" in judge.sentence(row)


def test_files_that_hold_no_lines_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"lines.txt has 1 line: write at least three, one of which is held out"):
        data(tmp_path, "one line\n\n")
    with pytest.raises(UsageError, match=r"lines.txt has no lines: write at least three"):
        data(tmp_path, "\n\n")
    said = r"line 1 of .*txt has 3 words, .* data.length=2, and 2 of 3 lines have: write data.length=4, or shorten them"
    with pytest.raises(UsageError, match=said):
        data(tmp_path, "a b e\nc\nd e f g\n", length=2)
    said = r"line 3 of .*lines.txt has 4 words, more than data.length=2, and 1 of 3 lines have: write data.length=4"
    with pytest.raises(UsageError, match=said):
        data(tmp_path, "a b\nc\nd e f g\n", length=2)
    with pytest.raises(UsageError, match=r"has 5 characters, more than data.length=3"):
        data(tmp_path, "a\nhello\nb\n", length=3, level="char")
    with pytest.raises(UsageError, match=r"data=lines:.*gone.txt cannot be read: No such file or directory$"):
        make(LinesConfig(), str(tmp_path / "gone.txt"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"gone.txt cannot be read: No such .*, looked for in {tmp_path}$"):
        make(LinesConfig(), "gone.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"data=lines:~/gone.txt cannot be read: No such file or directory$"):
        make(LinesConfig(), "~/gone.txt")
    (tmp_path / "two.txt").write_text("a b\nb a\n")
    assert make(LinesConfig(), "~/two.txt").real.shape == (1, 2)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UsageError, match="is not UTF-8: save it as UTF-8 text"):
        make(LinesConfig(), str(tmp_path / "bad.txt"))


def test_a_run_on_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, folder = tmp_path / "poems.txt", tmp_path / "run"
    corpus.write_text("\n".join(f"{a} {b} sat" for a in ("the", "one", "a") for b in ("cat", "dog", "ox")))
    assert main(["run", *TINY.split(), f"data=lines:{corpus}", f"dir={folder}"]) == 0
    assert "NLL_test" in capsys.readouterr().err
    assert main(["sample", str(folder), "n=5", "prefix=the ox"]) == 0
    assert all(line.startswith("the ox") for line in capsys.readouterr().out.splitlines())
    for out in (tmp_path, tmp_path / "..", folder / "checkpoints"):
        assert main(["sample", str(folder), f"out={out}"]) == 2
        said = capsys.readouterr().err
        assert said.endswith(f"out={out} is a folder: write out={out}/samples.txt\n") and said.count("\n") == 1
    assert not list(folder.glob("checkpoints.*"))
    assert main(["sample", str(folder), "prefix=the ox, don't"]) == 2
    assert "'ox,' is none of the 7 tokens" in capsys.readouterr().err
    assert main(["eval", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "nll_test: " in shown and "\nbigram sampler " in shown and "\nheld-out lines " in shown
    assert main(["sample", str(folder), "prefix=the bird"]) == 2
    assert "'bird' is none of the 7 tokens of the data set: write some that it has\n" in capsys.readouterr().err
    assert main(["sample", str(folder), "prefix=the cats"]) == 2
    assert "'cats' is none of the 7 tokens of the data set: write some that it has, as 'cat'" in capsys.readouterr().err
    assert main(["eval", str(folder), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert {"nll_test", "copy_rate", "bleu_2", "self_bleu_4", "distinct_2"} <= row.keys()
    corpus.write_text(corpus.read_text().replace("ox", "emu"))
    for command in ("sample", "resume"):
        assert main([command, str(folder)]) == 2
        said = capsys.readouterr().err
        assert f"the run in {folder} was trained on data of 'sha256=" in said
        assert f"and data=lines:{corpus} now has data of 'sha256=" in said
    assert main(["run", *TINY.split(), "data=lines", f"dir={tmp_path / 'x'}"]) == 2
    assert "data set 'lines' is a family: write data=lines:NAME." in capsys.readouterr().err

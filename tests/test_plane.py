"""Temperatures of a trained generator of sequences: samples, judgement, and the plane of quality against diversity."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text
from test_lines import TINY as LINES
from test_seqgan import TINY, fixed

from rlgan.cli.main import main
from rlgan.errors import UsageError
from rlgan.report import plane

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", *TINY.replace("pretrain=2", "pretrain=40").split(), "steps=170", f"dir={path}"]) == 0
    return path


def judged(capsys: Capture, *words: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", *map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_temperature_divides_logits() -> None:
    # probabilities 0.2, 0.3 and 0.5 at temperature 0.5 are 4, 9 and 25 of 38
    model = fixed([0.2, 0.3, 0.5])
    log = model.measure(model.sample(model.bias.new_zeros(1, 1)), 0.5)[0]
    assert float(log) == pytest.approx(math.log(4 / 38), abs=1e-6)


def test_evaluation_at_a_temperature(folder: Path, capsys: Capture) -> None:
    plain, same = judged(capsys, folder), judged(capsys, folder, "temperature=1")
    assert plain == same
    hot = judged(capsys, folder, "temperature=1e6")
    # all 12 tokens are alike: held-out ones too
    assert hot["nll_test"] == pytest.approx(math.log(12), abs=1e-4) and plain["nll_test"] > 3


def test_samples_at_a_temperature(folder: Path, capsys: Capture) -> None:
    def made(*words: str) -> list[str]:
        capsys.readouterr()
        assert main(["sample", str(folder), "n=200", *words]) == 0
        return capsys.readouterr().out.splitlines()

    assert made() == made("temperature=1")
    assert len(set(made("temperature=0.01"))) < len(set(made("temperature=0.5"))) < len(set(made("temperature=100")))


ELSEWHERE = {
    "protocol": "lines:a b.txt sha256=3a9f level=word",
    "run": "b",
    "plane": ["x", "y"],
    "rows": [{"temperature": 1, "x": 2, "y": 3}],
}


def test_the_plane_of_an_oracle(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    found = judged(capsys, folder, "temperatures=[1,0.5,2]")
    rows = found["rows"]
    assert [row["temperature"] for row in rows] == [1, 0.5, 2]
    for row in rows:
        one = judged(capsys, folder, f"temperature={row['temperature']}")
        assert all(one[key] == row[key] for key in row if key != "temperature")
    oracle = [row["nll_oracle"] for row in rows]
    assert oracle[1] < oracle[0] < oracle[2] and found["plane"] == ["nll_test", "nll_oracle"]
    assert Path(found["file"]) == folder / "plane.png" and (folder / "plane.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((folder / "plane.json").read_text()) == {k: v for k, v in found.items() if k != "file"}
    assert main(["eval", str(folder), "temperatures=[0.5]", f"against={folder}"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:3] == ["temperature", "nll_oracle", "nll_test"] and said[1].split()[0] == "0.5"
    assert main(["eval", str(folder), "temperatures=[0.5]", f"against={tmp_path}"]) == 2
    assert "cannot be read: write it first, by `rlgan eval" in capsys.readouterr().err
    for damaged in ("[1]", json.dumps({"protocol": "oracle"}), json.dumps({**found, "rows": [{"temperature": 1}]})):
        (tmp_path / "plane.json").write_text(damaged)
        assert main(["eval", str(folder), "temperatures=[0.5]", f"against={tmp_path}"]) == 2
        assert "cannot be read: write it first, by `rlgan eval" in capsys.readouterr().err
    (tmp_path / "plane.json").write_text(json.dumps({**ELSEWHERE, "protocol": "oracle of others"}))
    assert main(["eval", str(folder), "temperatures=[0.5]", f"against={tmp_path}"]) == 2
    assert "was judged on oracle of others, and this run on oracle drawn" in capsys.readouterr().err


def test_the_picture_has_each_run_and_each_known_place() -> None:
    rows = [{"temperature": t, "nll_test": 4 + t, "nll_oracle": 3 * t} for t in (1.0, 0.5)]
    points = {"the oracle": (3.0, 3.0), "bigram sampler": (5.0,)}
    figure = plane.draw(("nll_test", "nll_oracle"), [{"run": "a", "rows": rows}, {"run": "b", "rows": rows}], points)
    (axes,) = figure.axes
    first, second, known, across = axes.lines
    assert first.get_xydata().tolist() == second.get_xydata().tolist() == [[4.5, 1.5], [5.0, 3.0]]
    assert set(across.get_ydata()) == {5.0} and known.get_xydata().tolist() == [[3.0, 3.0]]
    assert {text.get_text() for text in axes.texts} == {"0.5", "1", "the oracle", "bigram sampler"}


def test_names_are_whole_and_apart() -> None:
    rows = [{"temperature": t, "self_bleu_4": 0.95 - 0.35 * t, "bleu_4": 0.9 - 0.5 * t} for t in (0.1, 0.12, 0.14, 1)]
    near = [row | {"self_bleu_4": row["self_bleu_4"] + 0.004} for row in rows]
    known = {"held-out lines": (0.955, 0.85), "trigram sampler": (0.66, 0.52), "bigram sampler": (0.655, 0.515)}
    points = known | {"random": (0.6,), "nearly random": (0.605,)}
    runs = [{"run": "a", "rows": rows}, {"run": "b", "rows": near}]
    figure = plane.draw(("self_bleu_4", "bleu_4"), runs, points)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without what ties it to its point
    assert len(boxes) == 13
    for i, box in enumerate(boxes):
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and box.y1 <= axes.bbox.y1
        assert not [other for other in boxes[:i] if other.overlaps(box)]
    (held,) = (box for box, text in zip(boxes, axes.texts, strict=True) if text.get_text() == "held-out lines")
    x, y = axes.transData.transform(known["held-out lines"])
    assert abs(held.x1 - x) < 15 and abs(held.y0 - y) < 30


def test_the_plane_of_lines(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "text.txt").write_text("a b c d e\nb c d e a\nc d e a b\nd e a b c\n" * 5)
    words = [*LINES.split(), f"data=lines:{tmp_path / 'text.txt'}", f"dir={tmp_path / 'run'}"]
    assert main(["run", *words]) == 0
    found = judged(capsys, tmp_path / "run", "temperatures=[0.1,1]")
    assert found["plane"] == ["self_bleu_4", "bleu_4"]
    assert found["rows"][0]["self_bleu_4"] > found["rows"][1]["self_bleu_4"]
    elsewhere = tmp_path / "else where" / "poems.txt"
    elsewhere.parent.mkdir()
    elsewhere.write_text((tmp_path / "text.txt").read_text())
    words = [*LINES.split(), f"data=lines:{elsewhere}", f"dir={tmp_path / 'other'}"]
    assert main(["run", *words]) == 0
    assert main(["eval", str(tmp_path / "other"), "temperatures=[1]", f"against={tmp_path / 'run'}"]) == 0


def test_data_is_known_by_its_kind_and_hash(tmp_path: Path) -> None:
    (tmp_path / "plane.json").write_text(json.dumps(ELSEWHERE))
    assert plane.read(tmp_path, "lines:../p2/c.txt sha256=3a9f level=word", ("x", "y"))
    for other in (
        "lines:a b.txt sha256=3a90 level=word",
        "lines:a b.txt sha256=3a9f level=char",
        "x sha256=3a9f level=word",
    ):
        with pytest.raises(UsageError, match="compare runs of the same data"):
            plane.read(tmp_path, other, ("x", "y"))
    with pytest.raises(UsageError, match="cannot be read: write it first"):
        plane.read(tmp_path, str(ELSEWHERE["protocol"]), ("x", "z"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("eval temperature=0", "temperature=0: must be greater than or equal to 0.01"),
        ("sample temperature=0", "temperature=0: must be greater than or equal to 0.01"),
        ("eval temperatures=[0.5,0]", "must be greater than or equal to 0.01"),
        (
            "eval temperatures=[0.5] temperature=1",
            "temperatures=[...] judges sequences at each of them: leave temperature= out",
        ),
        ("eval against=runs/x", "against= is drawn beside temperatures: write temperatures=[0.5,0.7,1] too"),
    ],
)
def test_what_is_refused(folder: Path, capsys: Capture, words: str, said: str) -> None:
    command, *rest = words.split()
    assert main([command, str(folder), *rest]) == 2
    assert said in capsys.readouterr().err


def test_images_have_no_temperature(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlgan.judge.EPOCHS", 1)  # how well images are judged does not matter here
    run = tmp_path / "run"
    few = "generator=dcgan data=digits data.source=uci steps=1 generator.width=4 generator.batch_size=8 eval.samples=8"
    assert main(["run", *few.split(), "threads=1", f"dir={run}"]) == 0
    for words in (["eval", "temperature=1"], ["eval", "temperatures=[1]"], ["sample", "temperature=1"]):
        assert main([words[0], str(run), *words[1:]]) == 2
        assert "dcgan in" in (said := capsys.readouterr().err) and "has no temperature: leave it out" in said

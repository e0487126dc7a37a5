"""Days of demand for many items: the moments of what is made up, and one sentence for each fault of a file."""

import numpy as np
import pytest

from rlgan.cli.main import main
from rlgan.errors import UsageError
from rlgan_envs import multi_series

HEADER = "date,sku,demand,price,cost,lead_time"


def test_made_up_demand_is_what_it_says():
    s = multi_series.make(20, 1)
    again, other = multi_series.make(20, 1), multi_series.make(20, 2)
    assert np.array_equal(s.demand, again.demand) and not np.array_equal(s.demand, other.demand)
    quiet = s.demand[s.promotion == 0].mean()
    assert 1.5 < s.demand[s.promotion == 1].mean() / quiet < 3 and 0.1 < s.promotion.mean() < 0.2
    for k in range(20):
        calm = s.promotion[:, k] == 0
        each = [s.demand[calm & (s.weekday == d), k] for d in range(7)]
        spread = np.mean([(x.var() - x.mean()) / x.mean() ** 2 for x in each])
        assert 1 / 9 < spread < 1 / 1.7, "var = m + m^2 / k with k of 2 to 8"
    assert ((s.price - s.cost) / s.price > 0.15).all() and set(s.lead_time) <= {1, 2, 3}


GOOD = ["2025-01-01,tea,3,5,2,1", "2025-01-02,tea,4,5,2,1", "2025-01-03,tea,0,5,2,1"]
FAULTS = {
    "negative demand": ([*GOOD[:2], "2025-01-03,tea,-2,5,2,1"], "row 4, column demand: -2 is negative"),
    "nan": ([GOOD[0], "2025-01-02,tea,nan,5,2,1"], "row 3, column demand: 'nan' is no number"),
    "empty": ([GOOD[0], "2025-01-02,tea,,5,2,1"], "row 3, column demand: '' is no number"),
    "words": ([GOOD[0], "2025-01-02,tea,4,five,2,1"], "row 3, column price: 'five' is no number"),
    "a gap": ([GOOD[0], GOOD[2]], "row 3, column date: 2025-01-03 follows 2025-01-01 of 'tea': 2025-01-02 is missing"),
    "unsorted": (
        [GOOD[1], GOOD[0]],
        "row 3, column date: 2025-01-01 follows 2025-01-02 of 'tea': 2025-01-01 comes again or out of order",
    ),
    "no date": (["01/02/2025,tea,3,5,2,1"], "row 2, column date: '01/02/2025' is no date; write it as 2025-01-31"),
    "no name": (["2025-01-01,,3,5,2,1"], "row 2, column sku: it is empty"),
    "lead time": (["2025-01-01,tea,3,5,2,100"], "row 2, column lead_time: 100 days are no shorter than an episode"),
    "half a day": (["2025-01-01,tea,3,5,2,1.5"], "row 2, column lead_time: 1.5 is no whole number"),
    "no margin": (["2025-01-01,tea,3,2,2,1"], "row 2, column price: 2 is not above the cost, 2"),
    "a new price": ([GOOD[0], "2025-01-02,tea,4,6,2,1"], "row 3, column price: 6 of 'tea' was 5 before"),
    "a short row": ([GOOD[0], "2025-01-02,tea,4"], "row 3: it has 3 cells and the first row 6"),
    "one row": (GOOD[:1], "has 1 row of demand"),
    "no row": ([], "has no rows of demand"),
    "a word as a price": (["2025-01-01,tea,3,five,2,1"], "column price: 'five' is no number; write one in each row\n"),
    "too much": (["2025-01-01,tea,1e12,5,2,1"], "column demand: 1e12 is more than 16,777,216; write larger units"),
    "a decimal comma": (
        [GOOD[0], '2025-01-02,tea,4,"4,50",2,1'],
        "row 3, column price: '4,50' is no number; write a point",
    ),
    "a comma of thousands": (
        ['2025-01-01,tea,"1,200",5,2,1'],
        "row 2, column demand: '1,200' is no number; write a point",
    ),
    "a currency": (
        ["2025-01-01,tea,3,$4.50,2,1"],
        "'$4.50' is no number; write a point for decimals, as in 1234.5, and no",
    ),
    "bare decimal commas": (
        ["2025-01-01,tea,3,4,50,2,80,1"],
        "row 2: it has 8 cells and the first row 6; write one cell for each column, and write a point for decimals",
    ),
    "other days": ([*GOOD, "2025-01-01,jam,3,5,2,1"], "'jam' has the days 2025-01-01 to 2025-01-01 and 'tea'"),
    "too short": (GOOD, "has 3 days, and an episode of env.max_steps=100 does not fit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_file_are_one_sentence(fault, tmp_path, capsys):
    rows, sentence = FAULTS[fault]
    path = tmp_path / "demand.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    words = ["run", "agent=random", "env=inventory-multi", f"env.csv={path}", f"dir={tmp_path / 'x'}"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said and str(path) in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"date,sku,demand,price\n", "row 1: no column cost, lead_time; the first row names the columns date, sku,"),
        (b"", "row 1: no column date, sku, demand, price, cost, lead_time"),
        (b"date,sku,demand,price,cost,lead_time,demand\n", "row 1: demand stands twice; name each column once"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "cannot be read: No such file or directory; write the path of a CSV file"),
        (HEADER.replace(",", ";").encode(), "row 1: cells are separated by ';'; write commas between them"),
        (HEADER.replace(",", "\t").encode(), "row 1: cells are separated by tabs; write commas between them"),
        (f"{HEADER},promotions\n".encode(), "row 1: column promotions would not be read; did you mean promotion?"),
        (f"{HEADER},volume\n2025-01-01,tea,3,5,2,1,0\n".encode(), "row 2, column volume: 0 is no room"),
        (f"{HEADER},promotion\n2025-01-01,tea,3,5,2,1,2\n".encode(), "row 2, column promotion: 2 is neither 0 nor 1"),
    ],
)
def test_files_that_are_none_are_one_sentence(content, sentence, tmp_path, capsys):
    path = tmp_path / "demand.csv"
    if content is not None:
        path.write_bytes(content)
    words = ["run", "agent=random", "env=inventory-multi", f"env.csv={path}", f"dir={tmp_path / 'x'}"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said and str(path) in said and said.count("\n") == 1


def test_a_file_is_looked_for_where_the_command_runs_or_at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"No such file or directory, looked for in {tmp_path}, where the") as gone:
        multi_series.read("demand.csv", 100)
    assert gone.value.__suppress_context__, "one traceback where a program reads it"
    (tmp_path / "demand.csv").write_text("\n".join([HEADER, *GOOD]) + "\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    assert multi_series.read("~/demand.csv", 100).names == ("tea",)
    with pytest.raises(UsageError, match=r"env.csv=~/gone.csv cannot be read: No such file or directory; write"):
        multi_series.read("~/gone.csv", 100)

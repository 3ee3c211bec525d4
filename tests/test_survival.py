"""The table of robustness: what was recorded is whole, in full size, and of the gallery that is kept."""

import csv
import json
import os
import time
from pathlib import Path
from random import Random

import pytest

from tests.attacks.test_gallery import GALLERY
from tests.survival import ATTACKS, Row, in_child, kill_at_random, tables

RESULTS = Path(__file__).parents[1] / "data" / "results"


def recorded() -> tuple[dict[str, object], list[Row]]:
    content = json.loads((RESULTS / "robustness.json").read_text(encoding="utf-8"))
    return content["about"], [Row(**row) for row in content["rows"]]


def test_the_recorded_run_was_full_and_survived() -> None:
    about, rows = recorded()
    assert about["full"] is True, "run `make robustness` and commit data/results/robustness*"
    assert all(row.survived == row.tried for row in rows)
    kills = [row for row in rows if row.group.startswith("kill -9")]
    assert sum(row.tried for row in kills) >= 200
    mutations = next(row for row in rows if row.what == "seeded mutations and splices")
    assert mutations.tried == mutations.refused >= 100_000


def test_the_recorded_attacks_are_the_kept_ones() -> None:
    _, rows = recorded()
    shown = {row.what.partition(":")[0] for row in rows if row.group == ATTACKS}
    assert shown == {attack["file"] for attack in GALLERY}, "run `make robustness`"


@pytest.mark.parametrize("name", ["cases", "attacks"])
def test_the_tables_of_the_book_are_those_of_the_record(name: str) -> None:
    _, rows = recorded()
    with (RESULTS / f"robustness_{name}.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == tables(rows)[name]


def test_sums() -> None:
    rows = [
        Row("a", "x", 3, 3, refused=3),
        Row("b", "y", 1000, 1000, accepted=1000),
        Row(ATTACKS, "f: g", 1, 1, 1),
    ]
    made = tables(rows)
    assert made["cases"][-1] == ["All", "1,004", "0", "4", "1,000", "1,004", ""]
    assert made["attacks"][1:] == [["f", "g", ""]]


def test_a_child_is_held_to_its_limits() -> None:
    """The watchdog and the limits work: without this the tests that lean on them would prove nothing."""
    assert in_child(lambda: 7).value == 7
    assert in_child(lambda: 1 // 0).error == "ZeroDivisionError"
    assert in_child(lambda: bytes(2**28), memory=2**26).error == "MemoryError"
    assert in_child(lambda: time.sleep(60), seconds=0.05).timed_out
    assert in_child(os.abort).signal == 6


def test_kills_hit() -> None:
    source = Random(1)
    assert kill_at_random(lambda: time.sleep(60), 0.05, source)
    assert not kill_at_random(lambda: None, 20.0, Random(3))

"""The benchmark measures what it says: it counts every run's rows, compares files, and tells what is missing. No times."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import data, report
from bench.__main__ import clean, compare, in_turns, measure
from bench.cases import Case, Place, all_cases
from bench.tables import TABLES
from tests.services import MariaDB

ROWS = 1000
LINES = (
    "SELECT seq, seq * 7, seq % 10, 1, seq % 50, seq / 3, 0.05, 0.08, 'N', 'O', '1996-03-13', '1996-02-12', "
    f"'1996-03-22', 'DELIVER IN PERSON', 'TRUCK', CONCAT('comment ', seq) FROM seq_1_to_{ROWS}"
)
NEED_NOTHING = (
    "engine, csv",
    "engine, csv, Europe/Berlin",
    "engine, jsonl",
    "mariadb --quick --batch",
    "sqlite3 + csv.writer",
)


@pytest.fixture
def place(mariadb: MariaDB, tmp_path: Path) -> Place:
    database = "bench"
    mariadb.sql(f"CREATE OR REPLACE DATABASE {database} CHARACTER SET utf8mb4")
    mariadb.sql(TABLES["lineitem"].ddl, database)
    mariadb.sql(f"INSERT INTO lineitem {LINES}", database)
    data.fill_small(mariadb, database, "lineitem", ROWS)
    tmp_path.chmod(0o755)
    data.fill_hard(mariadb, database, tmp_path / "hard.tsv", ROWS)
    data.fill_small(mariadb, database, "hard", ROWS // 2)
    data.fill_sold(mariadb, database, ROWS)
    data.write_sqlite(mariadb.url(database), tmp_path / "lineitem.sqlite3")
    out, disk = tmp_path / "out", tmp_path / "disk"
    return Place(mariadb.url(database), tmp_path / "lineitem.sqlite3", out, disk, sys.executable)


@pytest.mark.timeout(60)
def test_measures_and_writes_a_table(place: Place) -> None:
    cases = [case for case in all_cases(place) if case.name in NEED_NOTHING]
    counted = dict.fromkeys(("lineitem", "lineitem_small", "hard", "sold"), ROWS)
    measured = measure(place, cases, counted, rounds=1, most=0)
    text = report.render({**measured, "machine": "a machine", "versions": {}, "scale": 0.001, "rounds": 1,
                          "rows": counted, "written_to": "the disk"})  # fmt: skip
    assert "| engine, csv, Europe/Berlin | 1,000 |" in text
    assert "| mariadb --quick --batch | 1,000 |" in text
    assert text.count("| engine, csv | 1,000 |") == 4
    assert "| Parquet against chDB | 1 x | - | not measured |" in text


def test_the_engines_file_of_the_hard_table_is_the_same_as_csv_writers(place: Place) -> None:
    assert compare(place, "hard_small") == ROWS // 2


def test_a_lost_row_fails_the_benchmark(place: Place) -> None:
    with pytest.raises(RuntimeError, match="wrote 999 rows of 1000"):
        in_turns(place, [Case("group", "loses one", "hard", lambda: figures(rows=999))], {"hard": ROWS}, rounds=1)


def test_a_missing_peer_is_said_to_be_missing(place: Place) -> None:
    absent = Case("group", "absent", "hard", lambda: {"missing": "the program absent"})
    [case] = in_turns(clean(place), [absent], {"hard": ROWS}, rounds=3)
    assert (case["missing"], case["runs"]) == ("the program absent", [])


def test_a_missed_target_is_called_missed() -> None:
    target = replace(report.TARGETS[0], ratio=1.0)
    cases = [{"group": target.group, "name": name, "missing": "", "runs": [figures(seconds=seconds)]}
             for name, seconds in ((target.ours, 2.0), (target.theirs, 1.0))]  # fmt: skip
    assert report.reached({"cases": cases}, target) == (0.5, False)


def figures(**more: Any) -> dict[str, Any]:
    return {"seconds": 1.0, "rows": ROWS, "bytes": 1, "peak": 1.0, **more}

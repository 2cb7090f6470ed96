"""What is measured beside what: the engine per format, and the other ways, in groups whose cases alternate."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import MySQLdb

from bench.data import arguments
from bench.measure import Figures, command, python
from bench.tables import TABLES
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS

SPREADSHEETS = {"xlsx"}


@dataclass(frozen=True)
class Place:
    """Where things are: the source's addresses, the folder that is written to, the interpreter that has the peers."""

    url: str
    sqlite: Path
    out: Path
    disk: Path
    peers: str


@dataclass(frozen=True)
class Case:
    """`rows_of` names the table whose number of rows has to come out; a group's first case is its reference."""

    group: str
    name: str
    rows_of: str
    run: Callable[[], Figures]


def all_cases(place: Place) -> list[Case]:
    return [
        *_lineitem(place),
        *_formats(place),
        *_hard(place),
        *_times(place),
        *_small(place),
        *_sqlite(place),
        *_parts(place),
    ]


def engine(place: Place, table: str, kind: str, **more: Any) -> Figures:
    job = {"url": place.url, "table": table, "format": kind, "out": str(place.out), **more}
    return python(sys.executable, "-m", "bench.engine", json.dumps(job))


def peer(place: Place, name: str, table: str, kind: str = "csv", **more: Any) -> Figures:
    columns = [column.name for column in TABLES[table].columns]
    binary = any(column.type == "binary" for column in TABLES[table].columns)
    job = {"url": place.url, "table": table, "format": kind, "out": str(place.out), "columns": columns,
           "binary": binary, **more}  # fmt: skip
    return python(place.peers, "-m", "bench.peers", name, json.dumps(job))


def _client(place: Place) -> list[str]:
    parts = urlsplit(place.url)
    return [f"--host={parts.hostname}", f"--port={parts.port}", f"--user={parts.username}"]


def mariadb(place: Place, table: str) -> Figures:
    parts = urlsplit(place.url)
    # --batch escapes line ends and tabs, so that a line is a row; the first one has the names.
    words = ["mariadb", "--no-defaults", *_client(place), "--default-character-set=utf8mb4", "--quick", "--batch",
             f"--execute=SELECT * FROM {table}", parts.path[1:]]  # fmt: skip
    figures = command(words, place.out, {**os.environ, "MYSQL_PWD": parts.password or ""}, re.compile(b""))
    return {**figures, "rows": figures["rows"] - 1} if "rows" in figures else figures


def outfile(place: Place, table: str) -> Figures:
    place.out.chmod(0o777)  # the server writes, maybe as another user
    with MySQLdb.connect(**arguments(place.url)) as connection:  # type: ignore[arg-type]
        path = place.out / "outfile"
        began = time.perf_counter()
        rows = connection.cursor().execute(
            f"SELECT * FROM {table} INTO OUTFILE '{path}' CHARACTER SET utf8mb4 "
            "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
        )
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "rows": rows, "bytes": path.stat().st_size, "peak": None}


def mydumper(place: Place, table: str) -> Figures:
    parts = urlsplit(place.url)
    words = ["mydumper", *_client(place), f"--password={parts.password}", f"--database={parts.path[1:]}",
             f"--tables-list={table}", "--threads=2", "--rows=250000", "--no-schemas", "--trx-consistency-only",
             f"--outputdir={place.out / 'dump'}"]  # fmt: skip
    return command(words, place.out, os.environ, re.compile(rb"(INSERT INTO .* VALUES)?[\s,]*\("))


def _lineitem(place: Place) -> list[Case]:
    group, table = "lineitem as CSV", "lineitem"
    compressed = [name for name in COMPRESSIONS if name != "none"]
    return [
        Case(group, "engine, csv", table, partial(engine, place, table, "csv")),
        Case(group, "engine, csv, without SHA-256", table, partial(engine, place, table, "csv", hash=False)),
        *(
            Case(group, f"engine, csv, {name}", table, partial(engine, place, table, "csv", compression=name))
            for name in compressed
        ),
        Case(
            group, "engine, csv, to disk and synced", table, partial(engine, place, table, "csv", out=str(place.disk))
        ),
        *_peers(place, group, table),
    ]


def _peers(place: Place, group: str, table: str) -> list[Case]:
    return [
        Case(group, "mariadb --quick --batch", table, partial(mariadb, place, table)),
        Case(group, "SELECT ... INTO OUTFILE", table, partial(outfile, place, table)),
        Case(group, "mydumper, 2 threads (SQL)", table, partial(mydumper, place, table)),
        Case(group, "chDB, CSV", table, partial(peer, place, "chdb", table)),
        Case(group, "DuckDB's mysql scanner, CSV", table, partial(peer, place, "duckdb", table)),
    ]


def _formats(place: Place) -> list[Case]:
    group, table = "lineitem in other formats", "lineitem"
    names = [name for name in FORMATS if name != "csv" and name not in SPREADSHEETS]
    return [
        *(Case(group, f"engine, {name}", table, partial(engine, place, table, name)) for name in names),
        Case(group, "chDB, JSONEachRow", table, partial(peer, place, "chdb", table, "jsonl")),
        Case(group, "chDB, Parquet", table, partial(peer, place, "chdb", table, "parquet")),
    ]


def _hard(place: Place) -> list[Case]:
    group, table = "the hard table", "hard"
    names = [name for name in FORMATS if name not in SPREADSHEETS]
    return [
        *(Case(group, f"engine, {name}", table, partial(engine, place, table, name)) for name in names),
        *_peers(place, group, table),
    ]


def _times(place: Place) -> list[Case]:
    group, table = "times moved to a zone", "sold"
    return [
        Case(group, "engine, csv, as stored", table, partial(engine, place, table, "csv")),
        *(
            Case(group, f"engine, csv, {zone}", table, partial(engine, place, table, "csv", zone=zone))
            for zone in ("UTC", "Europe/Berlin")
        ),
        Case(group, "mariadb --quick --batch", table, partial(mariadb, place, table)),
        Case(group, "chDB, CSV", table, partial(peer, place, "chdb", table)),
    ]


def _small(place: Place) -> list[Case]:
    group, table = "the slow ones, on the first rows of lineitem", "lineitem_small"
    sheets = [name for name in FORMATS if name in SPREADSHEETS]
    return [
        Case(group, "engine, csv", table, partial(engine, place, table, "csv")),
        Case(group, "mysqlclient SSCursor + csv", table, partial(peer, place, "mysqlclient", table)),
        Case(group, "Django .iterator() + csv", table, partial(peer, place, "django", table)),
        Case(group, "pandas read_sql + to_csv", table, partial(peer, place, "pandas", table)),
        *(Case(group, f"engine, {name}", table, partial(engine, place, table, name)) for name in sheets),
        Case(group, "XlsxWriter constant_memory", table, partial(peer, place, "xlsxwriter", table)),
    ]


def _sqlite(place: Place) -> list[Case]:
    group, table, url = "lineitem's first rows from an SQLite file", "lineitem_small", f"sqlite:///{place.sqlite}"
    return [
        Case(group, "engine, csv", table, partial(engine, place, table, "csv", url=url)),
        Case(group, "sqlite3 + csv.writer", table, partial(peer, place, "sqlite", table, url=url)),
    ]


def _parts(place: Place) -> list[Case]:
    """The engine's own time, cut: reading alone, reading and encoding, all of it."""
    cases = []
    for table, kind in (("lineitem", "csv"), ("lineitem", "jsonl"), ("lineitem", "parquet"), ("hard", "csv")):
        for until, words in (("read", "read"), ("encode", "read and encode"), ("all", "all")):
            if kind in FORMATS:
                group = f"where the engine's time goes: {kind} of {table}"
                cases.append(Case(group, words, table, partial(engine, place, table, kind, until=until)))
    return cases

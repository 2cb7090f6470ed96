"""Fills the server: lineitem from dbgen, the hard table, rows of 16 MB, and a small lineitem as an SQLite file."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import MySQLdb

from bench.tables import HARD, TABLES
from tests.services import MariaDB

VERSION = 2  # of the data: a new one makes it anew
SMALL = 200_000  # rows for the slow ones, and what a spreadsheet can hold
SOLD_ROWS = 6_000_000  # at scale 1
HARD_ROWS = 400_000  # at scale 1: about 700 MB
WIDE_ROWS = 6
WORDS = (
    'said "no"', "Müller, Söhne & Co", "line one\nline two", "tab\there", "back\\slash", "naïve café", "日本語の文字",
    "🚚 shipped", "👩‍👩‍👧 family", "it's", "100 %", "two\r\nlines", "semi;colon", "plain", "words", "of", "every", "day",
)  # fmt: skip


def load(server: MariaDB, folder: Path, scale: float, python: str) -> dict[str, int]:
    """Makes and loads all tables unless `folder` says that they are there. Gives their rows."""
    marker = folder / "loaded.json"
    if marker.exists() and (known := json.loads(marker.read_text()))["version"] == VERSION:
        return dict(known["rows"])
    write = folder / "load"
    write.mkdir(exist_ok=True)
    print(f"bench: making the tables at scale {scale:g}, kept for later runs", flush=True)
    lineitem = write / "lineitem.tsv"
    subprocess.run([python, "-m", "bench.tpch", str(lineitem), str(scale)], check=True)
    fill(server, "bench", "lineitem", lineitem)
    fill_hard(server, "bench", write / "hard.tsv", max(1000, int(HARD_ROWS * scale)))
    fill_small(server, "bench", "lineitem", SMALL)
    fill_small(server, "bench", "hard", SMALL // 10)
    fill_sold(server, "bench", max(1000, int(SOLD_ROWS * scale)))
    fill_wide(server, "bench")
    write_sqlite(server.url("bench"), folder / "lineitem.sqlite3")
    for path in write.iterdir():
        path.unlink()
    rows = count(server, "bench")
    marker.write_text(json.dumps({"version": VERSION, "rows": rows}))
    return rows


def count(server: MariaDB, database: str) -> dict[str, int]:
    return {name: int(server.sql(f"SELECT COUNT(*) FROM {name}", database)) for name in TABLES}


def fill(server: MariaDB, database: str, table: str, path: Path) -> None:
    """Loads the tab-separated file; the server reads it itself."""
    names = [name if kind != "binary" else f"@{name}" for name, _, kind in TABLES[table].fields]
    blobs = [f"{name} = UNHEX(@{name})" for name, _, kind in TABLES[table].fields if kind == "binary"]
    server.sql(TABLES[table].ddl, database)
    server.sql(
        f"LOAD DATA INFILE '{path}' INTO TABLE {table} CHARACTER SET utf8mb4 ({', '.join(names)})"
        + (f" SET {', '.join(blobs)}" if blobs else ""),
        database,
    )


def fill_hard(server: MariaDB, database: str, path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(hard_lines(rows))
    fill(server, database, "hard", path)


def hard_lines(rows: int) -> Iterator[str]:
    """The hard table's rows: in each nullable column 30 % NULL, and whatever a text can hold. The same in every run."""
    chance = random.Random(16)
    pool = [" ".join(chance.choices(WORDS, k=chance.randint(50, 550))) for _ in range(2000)]  # 2 kB on the average
    made: dict[str, Callable[[], str]] = {
        "code": lambda: f"{chance.randrange(1 << 40):010x}",
        "name": lambda: " ".join(chance.choices(WORDS, k=3)),
        "note": lambda: " ".join(chance.choices(WORDS, k=chance.randint(1, 20))),
        "story": lambda: chance.choice(pool),
        "amount": lambda: f"{chance.randint(-(10**12), 10**12) / 100:.2f}",
        "rate": lambda: repr(chance.uniform(-1e6, 1e6)),
        "active": lambda: str(chance.randint(0, 1)),
        # Never a whole second: Python's text of it has no fraction, and the files could not be compared.
        "made": lambda: (
            f"2025-{chance.randint(1, 12):02}-{chance.randint(1, 28):02} "
            f"{chance.randint(0, 23):02}:{chance.randint(0, 59):02}:07.{chance.randint(1, 999_999):06}"
        ),
        "day": lambda: f"{chance.randint(1970, 2037)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}",
        "document": lambda: json.dumps({"tags": chance.choices(WORDS, k=3), "size": chance.randrange(1000)}),
        "raw": lambda: chance.randbytes(chance.randint(1, 64)).hex(),
    }
    for number in range(1, rows + 1):
        values = ["\\N" if chance.random() < 0.3 else _escaped(made[name]()) for name, _, _ in HARD[1:]]
        yield "\t".join([str(number), *values]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def fill_small(server: MariaDB, database: str, table: str, rows: int) -> None:
    """The first rows of a table as a table of their own."""
    key = ", ".join(TABLES[table].key)
    server.sql(TABLES[f"{table}_small"].ddl, database)
    server.sql(f"INSERT INTO {table}_small SELECT * FROM {table} ORDER BY {key} LIMIT {rows}", database)


def fill_sold(server: MariaDB, database: str, rows: int) -> None:
    """Over ten years, whatever the number of rows: in hardly a minute there are two of them."""
    server.sql(TABLES["sold"].ddl, database)
    server.sql(
        f"""SET time_zone = '+00:00'; INSERT INTO sold
        SELECT seq, FROM_UNIXTIME(1420070400 + FLOOR(seq * 315360000 / {rows})),
               IF(seq % 10, FROM_UNIXTIME(1420070400 + FLOOR(seq * 315360000 / {rows}) + seq * 7919 % 86400), NULL),
               ELT(1 + seq % 3, 'paid', 'shipped', 'refunded'), seq % 100000 / 100
        FROM seq_1_to_{rows}""",
        database,
    )


def fill_wide(server: MariaDB, database: str) -> None:
    server.sql(TABLES["wide"].ddl, database)
    server.sql(f"INSERT INTO wide SELECT seq, REPEAT('16 MB, \"a\"\n ', 1398101) FROM seq_1_to_{WIDE_ROWS}", database)


def write_sqlite(url: str, path: Path) -> None:
    """lineitem_small as an SQLite file, with the types that SQLite makes of TPC-H's."""
    path.unlink(missing_ok=True)
    table = TABLES["lineitem_small"]
    with MySQLdb.connect(**arguments(url)) as source, sqlite3.connect(path) as target:
        target.execute(table.ddl.replace("CREATE OR REPLACE", "CREATE").replace(" ENGINE=InnoDB", ""))
        cursor = source.cursor()
        cursor.execute("SELECT * FROM lineitem_small")
        rows = iter(cursor.fetchone, None)
        marks = ", ".join("?" * len(table.fields))
        target.executemany(f"INSERT INTO lineitem_small VALUES ({marks})", (tuple(map(str, row)) for row in rows))
    target.close()


def arguments(url: str) -> dict[str, object]:
    """A mysql:// address as mysqlclient takes it."""
    parts = urlsplit(url)
    return {
        "host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password,
        "database": parts.path.lstrip("/"), "charset": "utf8mb4",
    }  # fmt: skip

"""The other ways in Python, each in a process of its own: `python -m bench.peers NAME JOB`. Each gives its rows.

They write what they write by default, in the shape nearest to the engine's; none is slowed down on purpose.
"""

from __future__ import annotations

import base64
import csv
import json
import sqlite3
import sys
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.child import Job, load_extension, need, run

CHDB_FORMATS = {"csv": "CSVWithNames", "jsonl": "JSONEachRow", "parquet": "Parquet"}
FETCH = 2000


def file_of(job: Job) -> str:
    return str(Path(job["out"]) / "file")


def chdb(job: Job) -> int:
    import chdb

    parts = urlsplit(job["url"])
    source = f"mysql('{parts.hostname}:{parts.port}', '{parts.path[1:]}', '{job['table']}', '{parts.username}', "
    into = f"INTO OUTFILE '{file_of(job)}' FORMAT {CHDB_FORMATS[job['format']]}"
    result = chdb.query(f"SELECT * FROM {source}'{parts.password}') {into}")
    return int(result.rows_read())


def duckdb(job: Job) -> int:
    import duckdb

    parts = urlsplit(job["url"])
    address = f"host={parts.hostname} port={parts.port} user={parts.username} password={parts.password}"
    with duckdb.connect() as connection:
        load_extension(connection, "mysql_scanner")
        connection.execute(f"ATTACH '{address} database={parts.path[1:]}' AS source (TYPE mysql, READ_ONLY)")
        statement = f"COPY (SELECT * FROM source.{job['table']}) TO '{file_of(job)}' (FORMAT csv, HEADER)"
        return int(connection.execute(statement).fetchall()[0][0])


def pandas(job: Job) -> int:
    import pandas as pd
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"{job['url'].replace('mysql:', 'mysql+mysqldb:')}?charset=utf8mb4")
    rows = 0
    with engine.connect().execution_options(stream_results=True) as connection, open(file_of(job), "w") as file:
        statement = sqlalchemy.text(f"SELECT * FROM {job['table']}")
        for frame in pd.read_sql(statement, connection, chunksize=50_000):
            frame.to_csv(file, index=False, header=not rows)
            rows += len(frame)
    return rows


def _connect(job: Job) -> Any:
    import MySQLdb
    from MySQLdb.cursors import SSCursor

    parts = urlsplit(job["url"])
    return MySQLdb.connect(host=parts.hostname, port=parts.port, user=parts.username, password=parts.password,
                           database=parts.path[1:], charset="utf8mb4", cursorclass=SSCursor)  # fmt: skip


def _write(job: Job, names: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> int:
    counter = count()
    with open(file_of(job), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        rows = map(_with_base64, rows) if job.get("binary") else rows
        writer.writerows(row for row, _ in zip(rows, counter))  # noqa: B905
    return next(counter)


def _with_base64(row: tuple[Any, ...]) -> list[Any]:
    return [base64.b64encode(value).decode() if isinstance(value, bytes) else value for value in row]


def mysqlclient(job: Job) -> int:
    connection = _connect(job)
    cursor = connection.cursor()
    cursor.execute(f"SELECT * FROM {job['table']}")
    return _write(job, [column[0] for column in cursor.description], cursor)


def django(job: Job) -> int:
    from django.db import models

    fields = {name: models.TextField(primary_key=not number) for number, name in enumerate(job["columns"])}
    options = type("Meta", (), {"managed": False, "db_table": job["table"], "app_label": "bench"})
    model = type("Row", (models.Model,), {**fields, "Meta": options, "__module__": __name__})
    rows = model.objects.values_list(*job["columns"]).iterator(chunk_size=FETCH)  # type: ignore[attr-defined]
    return _write(job, job["columns"], rows)


def _set_up_django(job: Job) -> None:
    import django
    from django.conf import settings

    parts = urlsplit(job["url"])
    database = {"ENGINE": "django.db.backends.mysql", "NAME": parts.path[1:], "USER": parts.username,
                "PASSWORD": parts.password, "HOST": parts.hostname, "PORT": parts.port,
                "OPTIONS": {"charset": "utf8mb4"}}  # fmt: skip
    settings.configure(DATABASES={"default": database}, USE_TZ=False)
    django.setup()


def xlsxwriter(job: Job) -> int:
    import xlsxwriter

    number = 0
    book = xlsxwriter.Workbook(file_of(job), {"constant_memory": True, "default_date_format": "yyyy-mm-dd"})
    sheet = book.add_worksheet()
    cursor = _connect(job).cursor()
    cursor.execute(f"SELECT * FROM {job['table']}")
    sheet.write_row(0, 0, [column[0] for column in cursor.description])
    for number, row in enumerate(cursor, 1):
        sheet.write_row(number, 0, row)
    book.close()
    return number


def sqlite(job: Job) -> int:
    connection = sqlite3.connect(job["url"].removeprefix("sqlite:///"))
    cursor = connection.execute(f"SELECT * FROM {job['table']}")
    return _write(job, [column[0] for column in cursor.description], cursor)


PEERS: dict[str, tuple[Callable[[Job], int], tuple[str, ...]]] = {
    "chdb": (chdb, ("chdb",)),
    "duckdb": (duckdb, ("duckdb", "duckdb_extension_mysql_scanner")),
    "pandas": (pandas, ("pandas", "sqlalchemy", "MySQLdb")),
    "mysqlclient": (mysqlclient, ("MySQLdb", "MySQLdb.cursors")),
    "django": (django, ("django", "MySQLdb")),
    "xlsxwriter": (xlsxwriter, ("xlsxwriter", "MySQLdb")),
    "sqlite": (sqlite, ()),
}

if __name__ == "__main__":
    peer, modules = PEERS[sys.argv[1]]
    order: Job = json.loads(sys.argv[2])
    need(*modules)
    if peer is django:
        _set_up_django(order)
    run(peer, order)

"""Fixtures of the engine: a database with a reader of it, and stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from exportapp.engine.readers.mysql import MySQLReader
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.sinks import open_store, s3
from exportapp.engine.sinks.base import Store
from exportapp.engine.sinks.local import LocalStore
from exportapp.engine.sinks.s3 import S3Store
from tests.engine.scenes import Opening, sqlite_source
from tests.engine.servers import PART, Database, bucket_of, database_of, session
from tests.services import MariaDB
from tests.services.s3 import S3Server


@pytest.fixture
def database(mariadb: MariaDB) -> Database:
    return database_of(mariadb)


@pytest.fixture
def reader(database: Database) -> Iterator[MySQLReader]:
    opened = MySQLReader(database.url)
    yield opened
    opened.close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session(S3Server.secret_key))
    monkeypatch.setattr(s3, "FIRST_PART", PART)


@pytest.fixture
def moto_store(moto: S3Server, credentials: None) -> S3Store:
    return bucket_of(moto)


@pytest.fixture
def seaweedfs_store(seaweedfs: S3Server, credentials: None) -> S3Store:
    return bucket_of(seaweedfs)


@pytest.fixture
def memory_store() -> Store:
    return open_store("memory:")


@pytest.fixture
def local_store(tmp_path: Path) -> LocalStore:
    return LocalStore(f"file://{tmp_path}/files")


@pytest.fixture(params=["moto", "seaweedfs"])
def bucket(request: pytest.FixtureRequest) -> S3Store:
    made: S3Store = request.getfixturevalue(f"{request.param}_store")
    return made


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opening]:
    """Opens a reader of a database that a script fills."""
    readers: list[SQLiteReader] = []

    def open_filled(script: str) -> SQLiteReader:
        readers.append(SQLiteReader(sqlite_source(tmp_path, script)))
        return readers[-1]

    yield open_filled
    for reader in readers:
        reader.close()

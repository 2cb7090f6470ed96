"""What the engine's tests ask of real servers: a database of a test's own, a folder in a bucket."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from itertools import count

import boto3

from exportapp.engine.sinks.base import Store
from exportapp.engine.sinks.s3 import S3Store
from tests.services import MariaDB
from tests.services.s3 import REGION, S3Server

PART = 5 << 20  # the smallest that S3 takes
BUCKET = "engine-sinks"
_numbers = count()
ROWS_A_MILLION = "SELECT seq AS id, REPEAT('x', 200) AS body FROM seq_1_to_1000000"


@dataclass
class Database:
    """A database of a test's own, and the server's client as an oracle that shares nothing with the reader."""

    server: MariaDB
    name: str
    url: str

    def sql(self, statement: str) -> str:
        return self.server.sql(statement, self.name)

    def running(self, mark: str) -> list[str]:
        """What is running at the moment with `mark` in its text."""
        hidden = f"CONCAT('%{mark[:3]}', '{mark[3:]}%')"  # else this query would find itself
        return self.sql(f"SELECT INFO FROM information_schema.PROCESSLIST WHERE INFO LIKE {hidden}").splitlines()


def database_of(server: MariaDB) -> Database:
    """An empty database."""
    name = f"engine_{next(_numbers)}"
    return Database(server, name, server.create_database(name))


def url_of_user(database: Database, user: str, limits: str = "", grant: str = "SELECT", table: str = "*") -> str:
    """The address for a new user, who may read the database's tables or only one of them."""
    database.sql(f"CREATE OR REPLACE USER {user}@'%' IDENTIFIED BY 'secret' {limits}")
    database.sql(f"GRANT {grant} ON {database.name}.{table} TO {user}@'%'")
    return database.server.url(database.name, user)


@cache
def session(secret: str) -> boto3.Session:
    """What boto3 makes of the environment at its first use, and remembers."""
    return boto3.Session(S3Server.access_key, secret, region_name=REGION)


def bucket_of(server: S3Server) -> S3Store:
    """A store in a folder of its own."""
    with contextlib.suppress(server.client().exceptions.BucketAlreadyOwnedByYou):
        server.client().create_bucket(Bucket=BUCKET)
    return S3Store(f"s3://{BUCKET}/run {next(_numbers)}?endpoint={server.endpoint}")


def uploads_of(store: S3Store) -> list[str]:
    """The names of uploads that were begun and not ended."""
    listed = store.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return sorted(one["Key"][len(store.key("")) :] for one in listed if one["Key"].startswith(store.key("")))


def put(store: Store, name: str, *blocks: bytes) -> None:
    sink = store.create(name)
    for block in blocks:
        sink.write(block)
    sink.finish()


def content(store: Store, name: str) -> bytes:
    return b"".join(store.read(name))

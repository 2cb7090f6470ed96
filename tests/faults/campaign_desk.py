"""The desk of a campaign: its settings, its source, its people, and where its files and mails are."""

from __future__ import annotations

import os
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.faults.campaign_people import id_in
from tests.faults.proxy import Proxy
from tests.oracles.deliveries import Mail
from tests.services import Moto, SeaweedFS
from tests.services.s3 import REGION, S3Server

PEOPLE = ("alice", "bob", "charlie", "dora")
LEASE = 6
ENVIRONMENT = {
    "EXPORTAPP_LEASE_SECONDS": str(LEASE),
    "EXPORTAPP_SWEEP_SECONDS": "1",
    "EXPORTAPP_RING_AGAIN_SECONDS": "2",
    "EXPORTAPP_RETRY_SECONDS": "1",
    "EXPORTAPP_STALL_SECONDS": "20",
    "EXPORTAPP_CHUNK_ROWS": "20000",
    "EXPORTAPP_CHUNK_SECONDS": "1",
}
PACE = 1 << 20  # bytes a second from the source, so that a big export takes some seconds in which faults can strike

DATASETS = """
[sources.shop]

[datasets.notes]
source = "shop"
table = "notes"
key = ["id"]
time_column = "at"
columns = [
    { name = "id", type = "integer" },
    { name = "note" },
    { name = "price", type = "decimal", scale = 2 },
    { name = "at", type = "datetime" },
]

[datasets.pairs]
source = "shop"
query = "SELECT id, id % 100 AS part, UPPER(note) AS loud FROM notes"
key = ["id"]
columns = [
    { name = "id", type = "integer" },
    { name = "part", type = "integer" },
    { name = "loud" },
]
"""

TABLES = """
CREATE TABLE notes (id BIGINT PRIMARY KEY, note VARCHAR(200), price DECIMAL(20,2), at DATETIME NOT NULL, KEY (at));
INSERT INTO notes SELECT seq,
    CASE seq %% 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN CONCAT('say "', seq, '", twice')
        WHEN 3 THEN CONCAT('two\\nlines 😀 ', seq) ELSE CONCAT('plain ', seq) END,
    IF(seq %% 5 = 0, NULL, seq * 1.25 - 1000), '2024-01-01 00:00:00' + INTERVAL seq SECOND
FROM seq_1_to_%d;
"""
PAIRS = "CREATE TABLE pairs AS SELECT id, id % 100 AS part, UPPER(note) AS loud FROM notes"  # the oracle's alone


def making_people() -> str:
    """Code for the app's shell."""
    return (
        "from django.contrib.auth.models import User\n"
        f"for name in {PEOPLE!r}:\n"
        "    User.objects.create_user(name, name + '@example.com', name + '-password')\n"
    )


class Store:
    """Where the desk keeps files: its settings, and the names of all that lies there."""

    def __init__(self, kind: str, stack: ExitStack) -> None:
        self.env: dict[str, str] = {}
        self.proxies: dict[str, Proxy] = {}
        self._client: Any = None  # one for all threads: only to make one is nothing for two at once
        if kind != "local":
            server: S3Server = stack.enter_context(Moto() if kind == "moto" else SeaweedFS())
            self._client = server.client()
            self.proxies["store"] = proxy = stack.enter_context(Proxy(server.port))
            self.env = {
                "EXPORTAPP_STORAGE_URL": f"s3://{server.create_bucket('campaign')}",
                "EXPORTAPP_S3_ENDPOINT": proxy.through(server.endpoint),
                "AWS_ACCESS_KEY_ID": server.access_key,
                "AWS_SECRET_ACCESS_KEY": server.secret_key,
                "AWS_DEFAULT_REGION": REGION,
            }

    def names(self, var: Path) -> list[str]:
        if self._client is None:
            walked = os.walk(var / "files")  # which passes over folders that go meanwhile
            return [str(Path(folder, name).relative_to(var / "files")) for folder, _, names in walked for name in names]
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket="campaign")
        open_ones = self._client.list_multipart_uploads(Bucket="campaign").get("Uploads", [])
        names = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return [*names, *(f"{one['Key']} (an open upload)" for one in open_ones)]


def mail_of(message: EmailMessage) -> Mail:
    body = message.get_body(("plain",))
    text = body.get_content() if body else ""
    return Mail(str(message["To"]).partition("@")[0], id_in(text), str(message["Subject"]).startswith("Ready: "))

"""What tests play with: a few datasets, exports in every state, and browsers."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpResponse
from django.test import Client

from exportapp import datasets, lifecycle, storage
from exportapp.engine.specs import FileResult, Key, KeyRange, PieceResult, Plan, Recipe
from exportapp.models import Event, Export, ExportState, Step, StepKind
from tests.pages import Element, Pairs, read

DATASETS = """
[sources.shop]

[datasets.orders]
source = "shop"
table = "orders"
key = ["id"]
time_column = "placed_at"
groups = ["sales"]
max_days = 100
columns = [
    { name = "id", type = "integer" },
    { name = "placed_at", type = "datetime" },
    { name = "status" },
    { name = "total", type = "decimal", scale = 2 },
    { name = "gift", type = "boolean" },
    { name = "due_on", type = "date" },
    { name = "email", label = "E-mail <of the customer>", selected = false },
    { name = "comment", selected = false, filterable = false },
]

[datasets.revenue]
source = "shop"
table = "revenue"
time_column = "day"
columns = [{ name = "day", type = "date" }, { name = "revenue", type = "decimal" }]

[datasets.products]
source = "shop"
table = "products"
columns = [{ name = "id", type = "integer" }, { name = "name" }]

[datasets.regional]
source = "shop"
table = "orders"
row_rule = { column = "country", attribute = "country" }
columns = [{ name = "country" }]
"""

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\r\nSet-Cookie: b=c",
    "../../etc/passwd",
    'quote " and ; filename="evil.exe"',
    "Übersicht für 😀 & Söhne",
    "%0d%0aX: y",
    "{{ 7 * 7 }}{% debug %}",
]


SHOP = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, placed_at DATETIME NOT NULL, status TEXT, total DECIMAL(10,2), gift BOOLEAN,
    due_on DATE, email TEXT, comment TEXT, country TEXT);
CREATE INDEX orders_placed ON orders (placed_at);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25)
INSERT INTO orders SELECT i * 2, printf('2026-01-%02d 10:00:00', i), 'paid', i * 1.5, i % 2, '2026-02-01',
    'a' || i || '@example.com', 'say "' || i || '"', CASE WHEN i % 5 THEN 'DE' ELSE 'FR' END FROM n;
CREATE TABLE revenue (day DATE NOT NULL, revenue DECIMAL(12,2));
CREATE INDEX revenue_day ON revenue (day);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO products VALUES (1, 'Tea'), (2, NULL);
"""


def write_shop(path: Path) -> None:
    """The source of the datasets above, as an SQLite file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)


def ask(owner: User, dataset: str = "orders", name: str = "", **recipe: Any) -> Export:
    """An export that waits, as the form asks for one."""
    declared = datasets.catalogue().datasets[dataset]
    default: dict[str, Any] = {"columns": tuple(column.name for column in declared.columns[:2])}
    if declared.time_column:
        default |= {"start": "2026-01-01", "end": "2026-02-01"}
    made = Recipe(dataset, **{**default, **recipe})
    return lifecycle.request(owner, declared, made, request_key=uuid.uuid4().hex, name=name)


def in_state(owner: User, state: str, name: str = "", content: bytes = b"id\r\n1\r\n", **recipe: Any) -> Export:
    """An export in a state; a ready one with its file."""
    export = ask(owner, name=name, **recipe)
    at = lifecycle.now()
    values: dict[str, Any] = {"state": state}
    if state != ExportState.QUEUED:
        values["started_at"] = at
    if not Export(state=state).unfinished:
        values["finished_at"] = at
    if state == ExportState.FAILED:
        values["error"] = "The table is <gone>."
    if state in (ExportState.READY, ExportState.EXPIRED):
        values |= _with_file(export, content) | {"expires_at": at + timedelta(days=7)}
    Export.objects.filter(pk=export.pk).update(**values)
    export.refresh_from_db()
    return export


def _with_file(export: Export, content: bytes) -> dict[str, Any]:
    name = f"{export.folder}/1/file.{export.extension}"
    sink = storage.store().create(name)
    sink.write(content)
    sink.finish()
    digest = hashlib.sha256(content).hexdigest()
    receipt = {"rows": 1, "bytes": len(content), "sha256": digest, "consistency": "one statement", "times": "as stored"}
    return {"file_name": name, "file_rows": 1, "file_bytes": len(content), "receipt": receipt}


def file_of(export: Export) -> Path:
    path = storage.local_path(export)
    assert path is not None
    return path


# --- the way of an export, without a worker ---------------------------------------------------------------------------


def take(worker: str = "worker", hint: int | None = None) -> Step:
    """The step that the scheduler gives."""
    step = lifecycle.claim(worker, hint)
    assert step is not None, "nothing may run"
    return step


def planned(parts: int = 1, rows: int = 10, exact: bool = True) -> Plan:
    """A plan of so many parts, ten keys each, for `rows` in all."""
    return Plan(tuple(KeyRange((10 * part,), (10 * part + 10,)) for part in range(parts)), rows, exact)


def piece(rows: int = 10, last_key: Key | None = None) -> PieceResult:
    return PieceResult("somewhere/piece", rows, 100 * rows, "0" * 64, last_key)


def finish(step: Step, parts: int = 1, rows: int = 10) -> None:
    """What a worker records when it did the step well; a plan gives `parts` chunks, a chunk `rows`."""
    if step.kind == StepKind.PLAN:
        lifecycle.finish_plan(step, planned(parts, parts * rows))
    elif step.kind == StepKind.CHUNK:
        lifecycle.finish_chunk(step, piece(rows))
    elif step.kind == StepKind.ASSEMBLE:
        chunks = step.export.steps.filter(kind=StepKind.CHUNK)
        total = sum(chunk.rows_done for chunk in chunks)
        lifecycle.make_ready(step, FileResult(storage.file_name(step), total, 100 * total, "0" * 64), {"rows": total})
    else:
        lifecycle.finish_notify(step, "The mail was sent")


def held(kind: str, owner: User, parts: int = 1, rows: int = 10, **recipe: Any) -> Step:
    """A running step of that kind, of a new export that came so far."""
    ask(owner, **recipe)
    while (step := take()).kind != kind:
        finish(step, parts, rows)
    return step


def everything() -> dict[str, list[dict[str, Any]]]:
    """All rows that the lifecycle writes, to be compared with themselves later."""
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in (Export, Step, Event)}


# --- pages ------------------------------------------------------------------------------------------------------------


def browser(person: User | AnonymousUser) -> Client:
    """A new browser with the person signed in."""
    client = Client()
    if isinstance(person, User):
        client.force_login(person)
    return client


def send(client: Client, address: str, pairs: Pairs) -> HttpResponse:
    """Posts what a form sends."""
    return client.post(address, urlencode(pairs), content_type="application/x-www-form-urlencoded")


def new_form(client: Client, dataset: str = "orders", query: str = "") -> Element:
    """The page with the form for a new export."""
    response = client.get(f"/exports/new/{dataset}/{query}")
    assert response.status_code == 200
    return read(response.content)


def the_form(page: Element) -> Element:
    """The form of the page's own, not the one that signs out."""
    return page.one("main").one("form")


def last() -> Export:
    return Export.objects.latest("created_at")

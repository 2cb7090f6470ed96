"""The system checks against real sources: each mistake names file, dataset and what to do, and nothing tells a password."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage
from pytest_django import Settings

from exportapp import checks
from exportapp.engine import readers
from exportapp.environment import PROBLEMS, Problem
from tests.services import MariaDB, free_port

ROOT = Path(__file__).resolve().parent.parent

TABLES = """
CREATE TABLE orders (id BIGINT NOT NULL PRIMARY KEY, placed_at DATETIME NOT NULL, status VARCHAR(10), total DECIMAL(10,2),
    tenant INT NOT NULL, number INT NOT NULL, maybe INT UNIQUE, changed_at DATETIME, gift BOOLEAN, photo BLOB,
    UNIQUE (tenant, number));
CREATE INDEX orders_placed ON orders (placed_at);
CREATE INDEX orders_later ON orders (tenant, changed_at);
CREATE VIEW paid_orders AS SELECT id, placed_at, changed_at FROM orders WHERE status = 'paid';
"""

ORDERS = """
[sources.shop]
[datasets.orders]
source = "shop"
table = "orders"
key = ["id"]
time_column = "placed_at"
columns = [
    { name = "id", type = "integer" },
    { name = "placed_at", type = "datetime" },
    { name = "status" },
    { name = "total", type = "decimal", scale = 2 },
    { name = "tenant", type = "integer" },
    { name = "number", type = "integer" },
    { name = "maybe", type = "integer" },
    { name = "changed_at", type = "datetime" },
    { name = "gift", type = "boolean" },
    { name = "photo", type = "binary" },
]
"""


@pytest.fixture(scope="module")
def mysql_url(mariadb: MariaDB) -> str:
    url = mariadb.create_database("checked")
    mariadb.sql(TABLES, "checked")
    return url


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("checked") / "shop.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(TABLES)
    return f"sqlite:///{path}"


Told = list[tuple[str, str, str]]
Check = Callable[..., Told]


@pytest.fixture
def declare(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Checks a datasets file against a source: gives each message's id, text and hint."""

    def check(text: str, url: str) -> Told:
        settings.DATASETS_FILE = tmp_path / "my-datasets.toml"
        settings.DATASETS_FILE.write_text(text)
        monkeypatch.setenv("SOURCE_SHOP_URL", url)
        return told(checks.datasets())

    return check


def told(messages: list[CheckMessage]) -> Told:
    return [(str(one.id).removeprefix("exportapp."), one.msg, one.hint or "") for one in messages]


@pytest.fixture(params=["mysql", "sqlite"])
def check(request: pytest.FixtureRequest, declare: Check) -> Callable[[str], Told]:
    """The same against a real MariaDB, and against SQLite."""
    url = request.getfixturevalue(f"{request.param}_url")
    return lambda text: declare(text, url)


# --- datasets against their source ------------------------------------------------------------------------------------


def test_dataset_without_mistakes_is_passed_in_silence(check: Callable[[str], Told]) -> None:
    assert check(ORDERS) == []


# What is replaced, by what, and the message and hint that follow.
MISTAKES = [
    ('table = "orders"', 'table = "order"', "W021", "there is no table or view 'order'.",
     "Did you mean orders or paid_orders?"),
    ('table = "orders"', 'table = "warehouse"', "W021", "there is no table or view 'warehouse'.",
     "Is the user allowed to SELECT from it?"),
    ('{ name = "status" }', '{ name = "statuss" }', "W022", "there is no column 'statuss'.", "Did you mean status?"),
    ('{ name = "status" }', '{ name = "zzz" }', "W022", "there is no column 'zzz'.",
     "There are: id, placed_at, status, total, tenant, number, maybe, changed_at, gift, photo."),
    ('{ name = "status" }', '{ name = "status", type = "integer" }', "W023",
     "status is declared as integer, but is varchar(10).", 'Write type = "text".'),
    ('{ name = "total", type = "decimal", scale = 2 }', '{ name = "total" }', "W023",
     "total is declared as text, but is decimal(10,2).", 'Write type = "decimal".'),
    ('{ name = "photo", type = "binary" }', '{ name = "photo" }', "W023",
     "photo is declared as text, but is blob.", 'Write type = "binary".'),
    ('{ name = "changed_at", type = "datetime" }', '{ name = "changed_at", type = "time" }', "W023",
     "changed_at is declared as time, but is datetime.", 'Write type = "datetime".'),
    ('key = ["id"]', 'key = ["tenant"]', "E024", "the key ['tenant'] is not unique.",
     "Unique are: ['id'] or ['maybe'] or ['tenant', 'number']."),
    ('key = ["id"]', 'key = ["maybe"]', "E025",
     "the key column maybe may be NULL, and rows with NULL would be left out.",
     "Choose a key of columns that are NOT NULL, or leave key out."),
    ('time_column = "placed_at"', 'time_column = "changed_at"', "W026",
     "no index begins with the time column changed_at; each export reads the whole table.",
     "CREATE INDEX orders_changed_at ON orders (changed_at)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "number", "message", "hint"), MISTAKES, ids=[row[1] for row in MISTAKES])
def test_mistake_is_told_with_its_dataset_and_what_to_do(
    check: Callable[[str], Told], old: str, new: str, number: str, message: str, hint: str
) -> None:
    assert old in ORDERS
    [(found, text, advice)] = check(ORDERS.replace(old, new))
    assert (found, text.lower()) == (number, f"my-datasets.toml: datasets.orders: {message}".lower())
    assert words(advice) == words(hint)


def words(hint: str) -> list[str]:
    """A hint's alternatives, in whatever order a server names them."""
    return sorted(hint.strip(".?").replace("Unique are: ", "").replace("Did you mean ", "").split(" or "))


@pytest.mark.parametrize(("key", "found"), [
    ('["id"]', []), ('["tenant", "number"]', []), ('["number", "tenant"]', []), ('["id", "status"]', ["E025"]),
])  # fmt: skip
def test_key_that_holds_a_unique_one_is_unique(check: Callable[[str], Told], key: str, found: list[str]) -> None:
    assert [number for number, *_ in check(ORDERS.replace('["id"]', key))] == found


def test_all_mistakes_of_all_datasets_are_told_at_once(check: Callable[[str], Told]) -> None:
    second = ORDERS.replace("[sources.shop]", "").replace("datasets.orders", "datasets.others")
    found = check(
        ORDERS.replace('"status"', '"x"').replace('"gift"', '"y"') + second.replace('table = "orders"', 'table = "z"')
    )
    assert [number for number, *_ in found] == ["W022", "W022", "W021"]
    assert "datasets.others" in found[2][1]


def test_view_needs_no_key_and_no_index_but_its_columns(check: Callable[[str], Told]) -> None:
    view = """
[sources.shop]
[datasets.paid]
source = "shop"
view = "paid_orders"
key = ["id"]
time_column = "changed_at"
columns = [{ name = "id", type = "integer" }, { name = "changed_at", type = "datetime" }]
"""
    assert check(view) == []
    [(number, text, _)] = check(view.replace("columns = [", 'columns = [{ name = "no" }, '))
    assert (number, "'no'" in text) == ("W022", True)


QUERY = """
[sources.shop]
[datasets.totals]
source = "shop"
query = "SELECT status, SUM(total) AS sum FROM orders GROUP BY status"
columns = [{ name = "status" }, { name = "sum", type = "decimal" }]
"""


def test_query_is_tried(check: Callable[[str], Told]) -> None:
    assert check(QUERY) == []
    [(number, text, hint)] = check(QUERY.replace("FROM orders", "FROM warehouse"))
    assert number == "W020"
    assert text.startswith("my-datasets.toml: datasets.totals: the query does not run: ")
    assert "warehouse" in text
    assert hint == "Try it in the database."
    [(number, text, hint)] = check(QUERY.replace('{ name = "sum"', '{ name = "total"'))
    assert (number, hint) == ("W022", "There are: status, sum.")


def test_key_of_the_wrong_type_stops_the_start(check: Callable[[str], Told]) -> None:
    """It is cut and ordered wrongly; any other column's values are written as they are."""
    found = check(ORDERS.replace('{ name = "id", type = "integer" }', '{ name = "id" }'))
    assert [number for number, *_ in found] == ["E023"]


def test_key_that_is_no_key_in_mysql_alone_is_told(mariadb: MariaDB, declare: Check) -> None:
    url = mariadb.create_database("odd_keys")
    mariadb.sql("CREATE TABLE orders (kind ENUM('b', 'a') PRIMARY KEY, at TIMESTAMP NOT NULL, KEY (at))", "odd_keys")
    text = """
[sources.shop]
[datasets.orders]
source = "shop"
table = "orders"
key = ["kind"]
time_column = "at"
time_zone = "Europe/Berlin"
columns = [{ name = "kind" }, { name = "at", type = "datetime" }]
"""
    found = declare(text, url)
    assert [(number, hint) for number, _, hint in found] == [
        ("E028", "Declare UTC for it, as time_zone or as the column's zone."),
        ("E027", "Choose another key, or leave key out."),
    ]
    assert "at is a TIMESTAMP, which is read in UTC" in found[0][1]
    assert "the key column kind is an ENUM" in found[1][1]
    assert declare(text.replace("Europe/Berlin", "UTC").replace('key = ["kind"]', ""), url) == []


def test_part_of_an_index_on_a_prefix_makes_nothing_unique(mariadb: MariaDB, declare: Check) -> None:
    url = mariadb.create_database("prefixed")
    mariadb.sql(
        "CREATE TABLE orders (id INT NOT NULL, tenant INT NOT NULL, name VARCHAR(300) NOT NULL, UNIQUE (tenant, name(10)))",
        "prefixed",
    )
    text = """
[sources.shop]
[datasets.orders]
source = "shop"
table = "orders"
key = ["tenant"]
columns = [{ name = "tenant", type = "integer" }]
"""
    [(number, _, hint)] = declare(text, url)
    assert (number, hint) == ("E024", "Leave key out: the export is then read in one go.")


# --- sources ----------------------------------------------------------------------------------------------------------


def test_source_without_an_address_is_a_warning(declare: Check) -> None:
    [(number, text, hint)] = declare(ORDERS, "")
    assert (number, text) == ("W011", "my-datasets.toml: sources.shop has no address.")
    assert hint == "Set SOURCE_SHOP_URL=mysql://user:password@host:3306/database"


def test_source_that_is_not_reached_is_a_warning_without_its_password(declare: Check, mariadb: MariaDB) -> None:
    nobody = f"mysql://user:opensesame@127.0.0.1:{free_port()}/shop"
    wrong = mariadb.url("checked", password="opensesame")
    addresses = [
        nobody, wrong, mariadb.url("nowhere"), "mysql://user:open#sesame@db/shop",
        "mysql://user:open/sesame@db/shop", "mysql://user:opensesame@db:port/shop", "sqlite:////nowhere/shop.sqlite3",
        "postgres://user:opensesame@db/shop",
    ]  # fmt: skip
    for url in addresses:
        [(number, text, hint)] = declare(ORDERS, url)
        assert (number, hint) == ("W012", "Is SOURCE_SHOP_URL right?"), url
        assert text.startswith("my-datasets.toml: sources.shop was not looked at: ")
        assert "sesame" not in text
        assert "secret" not in text
        assert "'open'" not in text


def test_file_that_is_no_database_is_a_warning(declare: Check, tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite3"
    path.write_text("no database at all, but a text of some length" * 99)
    [(number, text, _)] = declare(ORDERS, f"sqlite:///{path}")
    assert number == "W012"
    assert text.endswith(f"sources.shop was not looked at: the file {path} is no SQLite database.")


def test_one_source_that_is_away_hides_no_mistake_of_another(declare: Check, sqlite_url: str) -> None:
    away = '[sources.away]\ndefault = "sqlite:////nowhere/x"\n'
    found = declare(away + ORDERS.replace('"status"', '"statuss"'), sqlite_url)
    assert [number for number, *_ in found] == ["W012", "W022"]


def test_surprise_in_a_check_keeps_no_desk_from_starting(
    declare: Check, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def surprising(url: str) -> Iterator[Any]:
        raise KeyError("a server that answers strangely")
        yield

    monkeypatch.setattr(checks, "inspecting", surprising)
    [(number, text, _)] = declare(ORDERS, sqlite_url)
    assert (number, text) == ("W014", "my-datasets.toml: sources.shop could not be looked at: KeyError.")


def test_missing_driver_is_told_with_the_command_that_adds_it(
    declare: Check, mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "exportapp.engine.readers.mysql", None)
    monkeypatch.delattr(readers, "mysql", raising=False)
    [(number, text, hint)] = declare(ORDERS, mysql_url)
    assert (number, text) == ("E013", "my-datasets.toml: sources.shop needs mysqlclient.")
    assert "libmariadb-dev" in hint


@pytest.mark.parametrize(
    ("text", "hint"), [("[datasets", "Compare it"), (ORDERS.replace('"id"', '"no"', 1), "Declare")]
)
def test_file_that_is_not_understood_is_an_error_with_its_hint(declare: Check, text: str, hint: str) -> None:
    assert declare(text, "") == []  # told once
    [(number, message, advice)] = told(checks.datasets_file())
    assert number == "E010"
    assert message.startswith("my-datasets.toml: ")
    assert advice.startswith(hint)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_values_that_were_not_understood_are_errors_with_their_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(checks.environment()) == []
    problem = Problem("EXPORTAPP_CHUNK_ROWS", "'x' is not a number of at least 1", "Write a number such as 500000.")
    monkeypatch.setattr(checks, "PROBLEMS", [*PROBLEMS, problem])
    assert told(checks.environment()) == [("E001", f"EXPORTAPP_CHUNK_ROWS: {problem.message}.", problem.hint)]


def test_broker_beside_sqlite_is_a_warning(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.BROKER_URL = "amqp://user:opensesame@rabbitmq/desk"
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    [(number, text, hint)] = told(checks.environment())
    assert number == "W002"
    assert "opensesame" not in text + hint
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.mysql")
    monkeypatch.setattr(checks, "_app_database", list)
    assert told(checks.environment()) == []


def test_app_database_that_lets_nobody_in_is_a_warning(mariadb: MariaDB, tmp_path: Path) -> None:
    """It may be down at the moment, and a desk that starts before it comes to life with it."""
    url = mariadb.url("nowhere", password="opensesame")
    env = os.environ | {"EXPORTAPP_DATABASE_URL": url, "EXPORTAPP_VAR": str(tmp_path)}
    command = [sys.executable, "manage.py", "check"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "(exportapp.W006) EXPORTAPP_DATABASE_URL: the database does not let the app in: Access denied" in done.stderr
    assert "opensesame" not in done.stderr


def test_file_without_a_dataset_is_a_warning(declare: Check) -> None:
    declare("[sources.shop]\n", "")
    [(number, text, hint)] = told(checks.datasets_file())
    assert (number, text) == ("W015", "my-datasets.toml: there is no dataset in it.")
    assert "inspect_source" in hint


def test_mysql_without_its_driver_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.mysql")
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    [(number, text, hint)] = told(checks.environment())
    assert (number, text) == ("E003", "EXPORTAPP_DATABASE_URL needs mysqlclient.")
    assert "libmariadb-dev" in hint


def test_storage_that_cannot_be_written_to_is_an_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a b").write_text("a file where a folder should be")
    for url in (f"file://{tmp_path}/a%20b", f"file://{tmp_path}/a%20b/below/it"):
        settings.STORAGE_URL = url
        [(number, text, hint)] = told(checks.environment())
        assert (number, hint) == ("E005", "Name a folder that this user may write to.")
        assert text == f"EXPORTAPP_STORAGE_URL: {tmp_path}/a b cannot be written to."
    settings.STORAGE_URL = f"file://{tmp_path}/not/yet/there"
    assert told(checks.environment()) == []


def test_bucket_has_to_have_a_name(settings: Settings) -> None:
    settings.STORAGE_URL = "s3:///prefix"
    [(number, text, hint)] = told(checks.environment())
    assert (number, text) == ("E004", "EXPORTAPP_STORAGE_URL names no bucket.")
    assert hint == "Write it like s3://bucket/prefix."
    settings.STORAGE_URL = "s3://bucket"
    assert told(checks.environment()) == []

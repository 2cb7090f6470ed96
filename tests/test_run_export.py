"""run_export writes the file that the workers would, whole or not at all, and tells scripts by its exit code how it
went."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import io
import itertools
import json
import os
import pty
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from pytest_django import Settings

from exportapp import receipts, storage
from exportapp.management import asked, output, progress
from exportapp.management.commands import run_export
from exportapp.models import Export
from tests.scenes import DATASETS, ask
from tests.services import MariaDB, free_port, wait_until
from worker.tasks import work

ROOT = Path(__file__).resolve().parent.parent
MONTH = ["--from", "2026-01-01", "--to", "2026-02-01"]
ORDERS = ["orders", *MONTH, "--columns", "id"]
ENDLESS = """
[datasets.endless]
source = "shop"
query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id FROM n"
columns = [{ name = "id", type = "integer" }]

[datasets.silent]
source = "shop"
query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) AS id FROM n"
columns = [{ name = "id", type = "integer" }]
"""

pytestmark = pytest.mark.usefixtures("shop")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(*arguments: str, stream: io.StringIO | None = None) -> str:
    """What the command says on the standard error."""
    said = stream or io.StringIO()
    call_command("run_export", *arguments, stderr=said)
    return said.getvalue()


def refused(*arguments: str) -> tuple[int, str]:
    """The exit code and the words of a command that does not succeed."""
    with pytest.raises(CommandError) as error:
        told(*arguments)
    return error.value.returncode, str(error.value)


def written(path: Path, *arguments: str) -> bytes:
    told(*arguments, "--output", str(path))
    return path.read_bytes()


def ids(path: Path, *conditions: str) -> list[int]:
    where = [part for condition in conditions for part in ("--where", condition)]
    return [int(line) for line in written(path, *ORDERS, *where).splitlines()[1:]]


def in_shop(shop: Path, statements: str) -> None:
    with contextlib.closing(sqlite3.connect(shop)) as connection:
        connection.executescript(statements)


def declare(settings: Settings, more: str) -> None:
    Path(settings.DATASETS_FILE).write_text(DATASETS + more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the export goes: alone in its folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / 'orders, of 100 % & "more" ü.csv'


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"format": "jsonl"}, {"format": "tsv", "compression": "gzip"}, {"format": "xlsx"}, {"compression": "zstd"},
    {"format": "parquet"},
])  # fmt: skip
def test_file_is_the_one_that_the_workers_make(
    alice: User, file: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.setattr("worker.heart.HEART.start", lambda: None)
    columns = ("id", "placed_at", "status", "total", "email", "comment")
    export = ask(alice, columns=columns, consistency="snapshot", **options)
    work()
    export.refresh_from_db()
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    receipt = file.with_name("receipt.json")
    made = written(file, "orders", *MONTH, "--columns", ",".join(columns), *given, "--receipt", str(receipt))
    path = storage.local_path(export)
    assert path is not None
    assert made == path.read_bytes()
    ours, theirs = json.loads(receipt.read_text()), {**export.receipt}
    for own in ("read_from", "read_until", "export", "user"):
        assert ours.pop(own, "") != theirs.pop(own)
    assert ours == json.loads(json.dumps(theirs))


def test_nothing_is_recorded_and_no_worker_is_needed(file: Path) -> None:
    assert written(file, *ORDERS).startswith(b'"Id"\r\n2\r\n4\r\n')
    assert not Export.objects.exists()
    assert os.listdir(file.parent) == [file.name]


def test_columns_that_are_not_named_are_those_ticked_at_first(file: Path) -> None:
    head = written(file, "orders", *MONTH).splitlines()[0]
    assert head == b'"Id","Placed at","Status","Total","Gift","Due on"'


def test_range_counts_in_the_zone(file: Path) -> None:
    arguments = ["orders", "--from", "2026-01-03 19:00", "--to", "2026-01-04", "--columns", "id"]
    assert written(file, *arguments, "--zone", "Asia/Tokyo") == b'"Id"\r\n6\r\n'
    assert written(file, *arguments) == b'"Id"\r\n'


def test_times_are_written_in_the_zone(file: Path, settings: Settings) -> None:
    declare(settings, """
        [datasets.dated]
        source = "shop"
        table = "orders"
        columns = [{ name = "id", type = "integer" }, { name = "placed_at", type = "datetime", zone = "UTC" }]
    """)  # fmt: skip
    made = written(file, "dated", "--where", "id=2", "--zone", "Asia/Tokyo")
    assert made == b'"Id","Placed at"\r\n2,2026-01-01 19:00:00+09:00\r\n'


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["id=4"], [4]),
        (["id = 4"], [4]),
        (["id=2,4,999"], [2, 4]),
        (["id=2, 4"], [2, 4]),
        (["total=3..4.5"], [4, 6]),
        (["total=..3"], [2, 4]),
        (["total=37.."], [50]),
        (["placed_at=2026-01-03"], [6]),
        (["placed_at=2026-01-03..2026-01-04"], [6, 8]),
        (["email~a1@"], [2]),
        (["email~=odd"], [10]),
        (["status="], [12]),
        (["status!=", "id=..14"], [2, 4, 6, 8, 10, 14]),
        (["status=a\\,b"], [4]),
        (["status=a\\,b, c..d"], [4, 6]),
        (["status=c..d"], [6]),
        (["status=x=y"], [8]),
        (["status=a,b"], []),
        (["gift=yes", "id=..6"], [2, 6]),
    ],
)  # fmt: skip
def test_condition_finds_its_rows(shop: Path, file: Path, conditions: list[str], found: list[int]) -> None:
    in_shop(shop, """
        UPDATE orders SET status = 'a,b' WHERE id = 4; UPDATE orders SET status = 'c..d' WHERE id = 6;
        UPDATE orders SET status = 'x=y' WHERE id = 8; UPDATE orders SET email = '=odd' WHERE id = 10;
        UPDATE orders SET status = NULL WHERE id = 12;
    """)  # fmt: skip
    assert ids(file, *conditions) == found


def test_options_are_heeded(shop: Path, file: Path) -> None:
    in_shop(shop, "INSERT INTO products VALUES (3, '=1+1')")
    products = ["products", "--columns", "id,name"]
    made = written(
        file, *products, "--header", "names", "--delimiter", "semicolon", "--bom", "--null", "NULL", "--exact"
    )
    assert made == b'\xef\xbb\xbf"id";"name"\r\n1;"Tea"\r\n2;NULL\r\n3;"=1+1"\r\n'
    assert written(file, *products) == b'"Id","Name"\r\n1,"Tea"\r\n2,\r\n3,"\'=1+1"\r\n'
    assert (
        gzip.decompress(written(file, *products, "--compression", "gzip"))
        == b'"Id","Name"\r\n1,"Tea"\r\n2,\r\n3,"\'=1+1"\r\n'
    )


@pytest.mark.parametrize(("name", "between"), [("comma", ","), ("|", "|"), ("TAB", "\t"), ("\\t", "\t"), (";", ";")])
def test_delimiter_is_given_by_name_or_as_it_is(file: Path, name: str, between: str) -> None:
    assert written(file, "products", "--delimiter", name).startswith(f'"Id"{between}"Name"'.encode())


def test_rows_of_mariadb_are_written(mariadb: MariaDB, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"run_{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("SOURCE_SHOP_URL", mariadb.create_database(name))
    mariadb.sql("""CREATE TABLE products (id BIGINT PRIMARY KEY, name TEXT);
        INSERT INTO products SELECT seq, CONCAT('tea ', seq, ' 😀') FROM seq_1_to_5000""", name)  # fmt: skip
    receipt = file.with_name("receipt")
    terminal = Terminal()
    told("products", "--output", str(file), "--receipt", str(receipt), stream=terminal)
    rows = "".join(f'{number},"tea {number} 😀"\r\n' for number in range(1, 5001))
    assert file.read_bytes() == f'"Id","Name"\r\n{rows}'.encode()
    assert receipts.mistakes([file.read_bytes()], receipts.claims(json.loads(receipt.read_text()))) == []
    mariadb.sql(f"DROP DATABASE {name}")


# --- whole or not at all ----------------------------------------------------------------------------------------------


def test_failed_export_leaves_what_was_there(shop: Path, file: Path) -> None:
    file.write_text("the old one")
    receipt = file.with_name("receipt")
    in_shop(shop, """
        WITH RECURSIVE n(i) AS (SELECT 101 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
        INSERT INTO orders (id, placed_at, total) SELECT i, '2026-01-05', CASE i WHEN 8500 THEN 'much' ELSE 1 END FROM n
    """)  # fmt: skip
    code, sentence = refused("orders", *MONTH, "--output", str(file), "--receipt", str(receipt))
    assert code == 1
    assert sentence.startswith("The column total is declared as a number but holds a text.")
    assert file.read_text() == "the old one"
    assert os.listdir(file.parent) == [file.name]


def test_file_is_replaced_and_keeps_its_mode(file: Path) -> None:
    file.write_text("the old one")
    file.chmod(0o640)
    assert b"old" not in written(file, *ORDERS)
    assert file.stat().st_mode & 0o777 == 0o640


def test_what_a_link_names_is_replaced_and_not_the_link(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    told(*ORDERS, "--output", str(link))
    assert link.is_symlink()
    assert file.read_bytes().startswith(b'"Id"')


def test_what_is_no_regular_file_is_written_to_and_not_replaced(file: Path) -> None:
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    told(*ORDERS, "--output", str(file))
    assert os.read(reader, 4096).count(b"\r\n") == 26
    os.close(reader)
    assert file.is_fifo()


def test_file_is_nobodys_to_read_meanwhile_that_may_not_read_the_old_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("the old one")
    file.chmod(0o600)
    modes, created = [], os.open

    def seen(path: Any, *arguments: Any, **more: Any) -> int:
        descriptor = created(path, *arguments, **more)
        modes.extend([os.fstat(descriptor).st_mode & 0o777] * str(path).endswith(".part"))
        return descriptor

    monkeypatch.setattr(os, "open", seen)
    told(*ORDERS, "--output", str(file))
    assert modes == [0o600]


@pytest.mark.parametrize("option", ["output", "receipt"])
def test_name_that_ends_as_a_folder_does_makes_no_file(file: Path, option: str) -> None:
    place = f"{file.parent}/new/"
    code, sentence = refused(*ORDERS, "--output", str(file), f"--{option}", place)
    assert (code, sentence.splitlines()[1]) == (2, f"--{option}: {place} cannot be written: Is a directory.")
    assert os.listdir(file.parent) == []


def test_link_that_leads_to_itself_is_told_and_stays(file: Path) -> None:
    file.symlink_to(file)
    code, sentence = refused(*ORDERS, "--output", str(file))
    assert (code, sentence.splitlines()[1]) == (
        2, f"--output: {file} cannot be written: Too many levels of symbolic links."
    )  # fmt: skip
    assert file.is_symlink()


def test_link_to_nothing_yet_makes_what_it_names(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    told(*ORDERS, "--output", str(link))
    assert file.read_bytes().startswith(b'"Id"')


def test_dataset_with_too_many_rows_is_not_written(file: Path, settings: Settings) -> None:
    declare(settings, '[datasets.few]\nsource = "shop"\ntable = "orders"\nmax_rows = 24\ncolumns = [{ name = "id" }]')
    code, sentence = refused("few", "--output", str(file))
    assert code == 1
    assert "24" in sentence
    assert os.listdir(file.parent) == []


# --- the receipt ------------------------------------------------------------------------------------------------------


def test_receipt_names_the_recipe_and_when_it_was_read(file: Path) -> None:
    receipt = file.with_name("receipt")
    made = written(file, *ORDERS, "--where", "id=2,4", "--receipt", str(receipt))
    content = json.loads(receipt.read_text())
    assert (content["rows"], content["bytes"]) == (2, len(made))
    assert content["recipe"]["filters"] == [{"column": "id", "op": "in", "values": ["2", "4"]}]
    assert content["consistency"] == receipts.SNAPSHOT
    read = [datetime.fromisoformat(content[name]) for name in ("read_from", "read_until")]
    assert read == sorted(read)
    assert {str(at.tzinfo) for at in read} == {"UTC"}
    assert receipts.mistakes([made], receipts.claims(content)) == []


def test_receipt_says_one_zone_and_how_consistent_it_is_but_once(file: Path) -> None:
    receipt = file.with_name("receipt")
    told(*ORDERS, "--zone", "Asia/Tokyo", "--output", str(file), "--receipt", str(receipt))
    text = receipt.read_text()
    assert json.loads(text)["recipe"]["zone"] == "Asia/Tokyo"
    assert (text.count('"zone"'), text.count('"consistency"')) == (1, 1)


def test_receipt_names_the_person_and_that_a_rule_chose_rows_but_no_values(alice: User, file: Path) -> None:
    alice.export_attributes.create(name="country", value="FR")
    receipt = file.with_name("receipt")
    told("regional", "--user", "alice", "--output", str(file), "--receipt", str(receipt))
    content = json.loads(receipt.read_text())
    assert content["user"] == "alice"
    assert content["row_rule"] == "only rows whose country is among the user's values of country"
    assert "FR" not in receipt.read_text()
    told(*ORDERS, "--user", "alice", "--output", str(file), "--receipt", str(receipt))
    content = json.loads(receipt.read_text())
    assert content["user"] == "alice"
    assert "row_rule" not in content
    told(*ORDERS, "--output", str(file), "--receipt", str(receipt))
    assert "user" not in json.loads(receipt.read_text())


def test_receipt_that_cannot_be_written_leaves_the_file_that_was_there(file: Path) -> None:
    file.write_text("the old one")
    code, sentence = refused(*ORDERS, "--output", str(file), "--receipt", "/dev/full")
    assert (code, sentence) == (75, "The receipt cannot be written: No space left on device.")
    assert file.read_text() == "the old one"
    assert os.listdir(file.parent) == [file.name]


def test_receipt_is_on_the_disk_before_the_file_gets_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = file.with_name("receipt")
    done: list[str] = []
    renamed, synced = output.rename_durably, os.fsync

    def rename(before: Path, after: Path) -> None:
        done.append(f"rename {after.name}")
        renamed(before, after)

    def sync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        done.extend([f"sync {name.rsplit('.', 2)[0]}"] * name.endswith(".part"))
        synced(descriptor)

    monkeypatch.setattr(output, "rename_durably", rename)
    monkeypatch.setattr(os, "fsync", sync)
    told(*ORDERS, "--output", str(file), "--receipt", str(receipt))
    assert done == [f"sync {file.name}", "sync receipt", f"rename {file.name}", "rename receipt"]


def test_receipt_may_go_to_the_standard_output(file: Path) -> None:
    done = run(*ORDERS, "--output", str(file), "--receipt", "-")
    assert json.loads(done.stdout)["bytes"] == file.stat().st_size


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["nothing"], ["There is no dataset 'nothing' in the datasets file."]),
        (["orders", "--from", "soon", "--to", "2026-01-01", "--zone", "Mars", "--columns", "x", "--where", "y=1"],
         ["--columns: There is no column “x” in Orders.", "--zone: There is no time zone “Mars”.",
          "--from: “soon” is not a date. Write it like 2026-01-31 or 2026-01-31 14:30.",
          "--where y=1: There is no column “y” to filter by."]),
        (["orders", "--from", "2026-01-01"],
         ["--to: Choose both ends: Orders may be exported for at most 100 days at once."]),
        (["products", "--where", "id"],
         ["--where id: Write a condition like status=paid; run_export --help shows all kinds."]),
        (["products", "--where", "id!=3"],
         ["--where id!=3: Write a condition like status=paid; run_export --help shows all kinds."]),
        (["products", "--where", "id=3,"],
         ["--where id=3,: Write what Id is to be compared with, or remove the condition."]),
        (["products", "--where", "id=.."],
         ["--where id=..: Write what Id is to be compared with, or remove the condition."]),
        (["products", "--where", "name=1", "--where", "id=x"], ["--where id=x: “x” is not a whole number, as Id is."]),
        (["products", "--format", "jsonl", "--delimiter", "tab", "--exact"],
         ["--delimiter: JSON Lines files have no such choice.", "--exact: JSON Lines files have no such choice."]),
        (["products", "--format", "xlsx", "--compression", "gzip"],
         ["--compression: Excel files are compressed in themselves: choose no other compression."]),
        (["products", "--user", "nobody"], ["--user: There is no user 'nobody'."]),
        (["orders", *MONTH, "--user", "charlie"], ["--user: charlie may not export Orders."]),
        (["regional"], ["--user: Name somebody: of Regional, everybody may have other rows."]),
        (["regional", "--user", "charlie"], ["--user: charlie may not export Regional."]),
    ],
)  # fmt: skip
def test_wrong_arguments_are_told_one_a_line(charlie: User, file: Path, arguments: list[str], lines: list[str]) -> None:
    code, sentences = refused(*arguments, "--output", str(file))
    assert code == 2
    assert sentences.removeprefix("The export cannot be run.\n").splitlines() == lines
    assert os.listdir(file.parent) == []


@pytest.mark.parametrize("options", [
    {"from": "", "to": ""}, {"columns": ","}, {"columns": ""}, {"columns": " , "}, {"where": ""}, {"zone": ""},
    {"user": ""}, {"receipt": ""}, {"output": ""}, {"to": "  "},
])  # fmt: skip
def test_option_that_is_given_but_empty_is_told_and_not_taken_for_none(file: Path, options: dict[str, str]) -> None:
    code, sentence = refused("revenue", "--output", str(file), *(f"--{name}={text}" for name, text in options.items()))
    told_of = [f"--{name}: This is empty: give it a value, or leave it out." for name in options]
    assert (code, sentence.splitlines()[1:]) == (2, told_of)
    assert os.listdir(file.parent) == []


def test_option_that_is_no_text_is_told(file: Path) -> None:
    options = [
        "--from",
        "\udcff",
        "--zone",
        "\udcff",
        "--columns",
        "id,\udcff",
        "--where",
        "v=\udcff",
        "--user",
        "\udcff",
    ]
    code, sentence = refused("products", "--output", str(file), *options)
    named = ("from", "zone", "columns", "user", "where v=\udcff")
    assert (code, sentence.splitlines()[1:]) == (2, [f"--{name}: This is no UTF-8 text." for name in named])


def test_names_of_files_may_be_any_bytes(file: Path) -> None:
    place, receipt = (os.fsdecode(os.fsencode(file) + more) for more in (b"\xff", b"\xfe"))
    told(*ORDERS, "--output", place, "--receipt", receipt)
    assert sorted(os.listdir(os.fsencode(file.parent))) == sorted(
        os.fsencode(Path(name).name) for name in (place, receipt)
    )


def test_receipt_cannot_go_where_the_export_goes(file: Path) -> None:
    other, link = f"{file.parent}/../out/{file.name}", file.with_name("link")
    link.symlink_to(file)
    for receipt, place in (
        (other, str(file)), (str(link), str(file)), ("-", "-"), ("/dev/stdout", "-"), ("-", "/dev/fd/1"),
    ):  # fmt: skip
        code, sentence = refused(*ORDERS, "--output", place, "--receipt", receipt)
        assert (code, sentence.splitlines()[1:]) == (2, ["--receipt: This is where the export itself is to go."])


@pytest.mark.parametrize("option", ["output", "receipt"])
@pytest.mark.parametrize(("where", "reason"), [("", "Is a directory"), ("gone/x", "No such file or directory")])
def test_place_that_cannot_be_written_is_told_before_anything_is_read(
    shop: Path, file: Path, option: str, where: str, reason: str
) -> None:
    shop.unlink()
    place = f"{file.parent}/{where}"
    code, sentence = refused(*ORDERS, "--output", str(file), f"--{option}", place)
    assert (code, sentence.splitlines()[1]) == (2, f"--{option}: {place} cannot be written: {reason}.")
    assert os.listdir(file.parent) == []


def test_own_row_rule_is_heeded(alice: User, file: Path) -> None:
    alice.export_attributes.create(name="country", value="FR")
    assert written(file, "regional", "--user", "alice") == b'"Country"\r\n' + b'"FR"\r\n' * 5


def test_error_that_a_retry_may_mend_has_its_own_code(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_SHOP_URL", f"mysql://nobody:secret@127.0.0.1:{free_port()}/shop")
    code, sentence = refused(*ORDERS, "--output", str(file))
    assert code == 75
    assert sentence.startswith("The database did not answer or broke off the connection.")
    assert "secret" not in sentence


def test_error_for_good_has_another(shop: Path, file: Path) -> None:
    in_shop(shop, "DROP TABLE products")
    code, sentence = refused("products", "--output", str(file))
    assert (code, sentence.partition(" [")[0]) == (
        1, "The table no longer has what this dataset names. An operator has to update the dataset."
    )  # fmt: skip


def test_app_database_that_is_away_matters_only_where_a_person_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: Any) -> User:
        raise DatabaseError("away")

    monkeypatch.setattr(asked.User.objects, "get", away)
    assert refused("products", "--user", "alice", "--output", str(file)) == (
        75, "The export desk's own database does not answer [away]"
    )  # fmt: skip
    told("products", "--output", str(file))


def test_datasets_file_that_is_not_understood_is_told(file: Path, settings: Settings, tmp_path: Path) -> None:
    settings.DATASETS_FILE = tmp_path / "broken.toml"
    settings.DATASETS_FILE.write_text("=")
    code, sentence = refused("products", "--output", str(file))
    assert code == 1
    assert "Compare it with the example" in sentence


# --- what is told meanwhile -------------------------------------------------------------------------------------------


def screen(text: str) -> list[str]:
    """The lines that a terminal shows in the end."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown: list[str] = []
        for part in line.split("\r"):
            shown[: len(part)] = part
        lines.append("".join(shown).rstrip())
    return lines


def test_last_line_says_how_much_and_how_fast(file: Path) -> None:
    [line] = told(*ORDERS, "--output", str(file)).splitlines()
    rows, size, speed = line.split(", ")
    assert (rows, size) == ("25 rows", f"{file.stat().st_size} bytes")
    assert speed.endswith(" rows/s")


@pytest.mark.parametrize("quiet", [["--quiet"], ["--verbosity", "0"]])
def test_nothing_is_told_when_nothing_is_wanted(file: Path, quiet: list[str]) -> None:
    assert told(*ORDERS, "--output", str(file), *quiet, stream=Terminal()) == ""


def test_bar_is_drawn_over_itself_and_gone_in_the_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0)
    drawn = told(*ORDERS, "--output", str(file), stream=Terminal())
    assert "\r[--------------------] about 0%  0 rows  0 rows/s\r" in drawn
    assert "\r[###################-] about 99%  25 rows  " in drawn
    first, last = screen(drawn)
    assert first.startswith("25 rows, ")
    assert last == ""


def test_bar_stays_on_one_line_of_a_narrow_terminal(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_width", lambda stream: 20)
    drawn = told(*ORDERS, "--output", str(file), stream=Terminal()).rpartition("\r")[0]
    assert max(map(len, drawn.split("\r"))) == 19


def test_line_without_an_estimate_has_no_bar(file: Path) -> None:
    drawn = told("orders", "--from", "2020-01-01", "--to", "2020-01-02", "--output", str(file), stream=Terminal())
    assert "#" not in drawn
    assert "0 rows  0 rows/s" in drawn


# --- as scripts run it ------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", "run_export", *arguments]


@pytest.fixture(autouse=True)
def environment(desk: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes have the same datasets; a broker and an app database that are not there do not disturb them."""
    monkeypatch.setenv("EXPORTAPP_VAR", str(desk))
    monkeypatch.setenv("EXPORTAPP_DATASETS", str(desk / "datasets.toml"))
    monkeypatch.setenv("EXPORTAPP_BROKER_URL", f"amqp://nobody:secret@127.0.0.1:{free_port()}/none")
    monkeypatch.setenv("EXPORTAPP_DATABASE_URL", f"mysql://nobody:secret@127.0.0.1:{free_port()}/none")
    monkeypatch.setenv("PYTHONWARNINGS", "error")


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, timeout=60, check=False)


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the command, or other arguments of the interpreter; none is left behind."""
    with contextlib.ExitStack() as ending:
        # What is started in the background ignores Ctrl-C, and so does what that starts.
        ending.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))

        def begin(*arguments: str, argv: list[str] | None = None) -> subprocess.Popen[bytes]:
            argv = argv or command(*arguments)
            process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            ending.enter_context(process)
            ending.callback(process.kill)
            return process

        yield begin


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The exit code and what was said on the standard error."""
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_standard_output_has_the_export_alone() -> None:
    done = run(*ORDERS, "--output", "-")
    assert done.returncode == 0
    assert done.stdout == b'"Id"\r\n' + b"".join(b"%d\r\n" % number for number in range(2, 51, 2))
    assert done.stderr.startswith(b"25 rows, ")
    assert done.stderr.count(b"\n") == 1


def shell(line: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What becomes of a line of a shell, in which "$@" is the command; its streams have buffers, as they mostly do."""
    argv = ["bash", "-c", line, "bash", *command(*arguments)]
    given = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=60, check=False, env={**given, **environment})


def test_standard_output_may_be_named_as_a_file_and_is_written_on_where_it_stands(file: Path) -> None:
    assert shell('"$@" --output /dev/stdout | cat', *ORDERS).stdout.count(b"\r\n") == 26
    done = shell('{ echo before; "$@" --output /dev/stdout; echo after; } >> "$FILE"', *ORDERS, FILE=str(file))
    assert (done.returncode, done.stderr[:8]) == (0, b"25 rows,")
    lines = file.read_bytes().split(b"\n")
    assert (lines[0], lines[1], lines[-2]) == (b"before", b'"Id"\r', b"after")
    assert os.listdir(file.parent) == [file.name]


def test_pipes_that_a_shell_makes_are_written_into(file: Path) -> None:
    receipt = file.with_name("receipt")
    done = shell(
        '"$@" --output >(cat > "$FILE") --receipt >(cat > "$RECEIPT")', *ORDERS, FILE=str(file), RECEIPT=str(receipt)
    )
    assert (done.returncode, done.stderr[:8]) == (0, b"25 rows,")
    wait_until(lambda: receipt.exists() and receipt.stat().st_size, 10, "the other commands")
    assert file.read_bytes().count(b"\r\n") == 26
    assert json.loads(receipt.read_text())["bytes"] == file.stat().st_size


@pytest.mark.parametrize("mode", [0o300, 0o500])
def test_folder_that_may_not_be_read_or_not_be_written_is_told_before(file: Path, mode: int) -> None:
    file.write_text("the old one")
    file.parent.chmod(mode)
    # What root is allowed beyond the modes of files.
    dropping = "setpriv --bounding-set=-dac_override,-dac_read_search" if os.geteuid() == 0 else ""
    done = shell(f'{dropping} "$@"', *ORDERS, "--output", str(file))
    file.parent.chmod(0o700)
    assert (done.returncode, done.stderr.rpartition(b" cannot be ")[2]) == (2, b"written: Permission denied.\n")
    assert file.read_text() == "the old one"
    assert os.listdir(file.parent) == [file.name]


def test_receipt_cannot_replace_the_file_that_the_standard_output_is(file: Path) -> None:
    done = shell('"$@" --output - --receipt "$FILE" > "$FILE"', *ORDERS, FILE=str(file))
    assert done.returncode == 2
    assert done.stderr.endswith(b"\n--receipt: This is where the export itself is to go.\n")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('"$@" --output - >&-', b"--output: - cannot be written: it is closed."),
        ('"$@" --output - --receipt /dev/null >&-', b"--output: - cannot be written: it is closed."),
        ('"$@" --output /dev/stdout >&-', b"--output: /dev/stdout cannot be written: it is closed."),
        ('"$@" --output /dev/fd/77', b"--output: /dev/fd/77 cannot be written: Bad file descriptor."),
        ('"$@" --output /dev/fd/0 < /dev/null', b"--output: /dev/fd/0 cannot be written: it is open for reading only."),
    ],
)
def test_descriptor_that_takes_nothing_is_told(line: str, sentence: bytes) -> None:
    done = shell(line, *ORDERS)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (2, [sentence])


def test_what_is_no_text_is_told_in_words() -> None:
    done = shell("\"$@\" --where $'v=\\xff'", *ORDERS, "--output", "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.splitlines()[1:] == [b"--where v=\\udcff: This is no UTF-8 text."]


@pytest.mark.parametrize("closing", ["2>&-", "2> >(true)", "2> /dev/full"])
def test_export_is_there_though_nobody_hears_of_it(file: Path, closing: str) -> None:
    done = shell(f'"$@" {closing}', *ORDERS, "--output", str(file))
    assert done.returncode == 0
    assert file.read_bytes().count(b"\r\n") == 26


@pytest.mark.parametrize("closing", ["2>&-", "2> /dev/full"])
def test_exit_code_is_the_same_though_nobody_hears_why(closing: str) -> None:
    assert shell(f'"$@" {closing}', *ORDERS, "--output", "/dev/full").returncode == 75
    assert shell(f'"$@" {closing}', "nothing", "--output", "-").returncode == 2


def test_few_lines_of_many_may_be_read(settings: Settings) -> None:
    declare(settings, ENDLESS)
    done = shell('"$@" | head -2; exit ${PIPESTATUS[0]}', "endless", "--output", "-", "--compression", "none")
    assert (done.returncode, done.stdout, done.stderr) == (141, b'"Id"\r\n1\r\n', b"")


def test_two_at_once_to_one_place_leave_one_whole_file(file: Path, start: Start) -> None:
    both = [start(*ORDERS, "--output", str(file)) for _ in range(2)]
    assert [ended(process)[0] for process in both] == [0, 0]
    assert file.read_bytes().count(b"\r\n") == 26
    assert os.listdir(file.parent) == [file.name]


def test_full_disk_has_the_code_for_later() -> None:
    done = run(*ORDERS, "--output", "/dev/full")
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr == b"CommandError: The output cannot be written: No space left on device.\n"


def test_arguments_that_are_not_understood_have_the_code_for_wrong_ones() -> None:
    for arguments, sentence in (
        ([*ORDERS], b"the following arguments are required: --output"),
        ([*ORDERS, "--output", "-", "--delimiter", "x"], b"choose one of comma, semicolon, tab, bar"),
        ([*ORDERS, "--output", "-", "--columns", "x"], b"\n--columns: There is no column"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, b"")
        assert sentence in done.stderr
        assert b"Traceback" not in done.stderr


def test_help_names_conditions_and_exit_codes() -> None:
    shown = run("--help").stdout.decode()
    assert "\n  --where COLUMN=A,B,C      is one of them; a comma within a value is written \\,\n" in shown
    for code in (0, 1, 2, 75, 129, 130, 141, 143):
        assert f"\n  {code} " in shown


def test_reader_that_goes_away_ends_it_without_a_word(settings: Settings, start: Start) -> None:
    declare(settings, ENDLESS)
    process = start("endless", "--output", "-")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(6) == b'"Id"\r\n'
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (141, b"")


@pytest.mark.parametrize("dataset", ["endless", "silent"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_it_and_leaves_what_was_there(
    settings: Settings, file: Path, start: Start, dataset: str, number: signal.Signals, code: int
) -> None:
    declare(settings, ENDLESS)
    file.write_text("the old one")
    process = start(dataset, "--output", str(file))
    least = 1000 if dataset == "endless" else 0
    wait_until(lambda: any(part.stat().st_size >= least for part in file.parent.glob("*.part")), 60, "the first rows")
    process.send_signal(number)
    assert ended(process) == (code, b"")
    assert file.read_text() == "the old one"
    assert os.listdir(file.parent) == [file.name]


def test_signal_ends_the_query_on_the_server_too(
    mariadb: MariaDB, settings: Settings, file: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"run_{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("SOURCE_SHOP_URL", mariadb.create_database(name))
    slow = "SELECT COUNT(*) AS n FROM seq_1_to_1000000 AS x, seq_1_to_1000000 AS y WHERE x.seq * y.seq % 7 = 3"
    declare(
        settings, f'[datasets.slow]\nsource = "shop"\nquery = "{slow}"\ncolumns = [{{ name = "n", type = "integer" }}]'
    )
    running = "SELECT info FROM information_schema.processlist WHERE info LIKE '/* exportapp run_export=slow%'"
    process = start("slow", "--output", str(file))
    wait_until(lambda: mariadb.sql(running), 60, "the query")
    process.terminate()
    assert ended(process) == (143, b"")
    wait_until(lambda: not mariadb.sql(running), 10, "the query to leave the server")
    assert os.listdir(file.parent) == []
    mariadb.sql(f"DROP DATABASE {name}")


# --- signals at any moment --------------------------------------------------------------------------------------------


def test_signal_between_the_two_names_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = file.with_name("receipt")
    renamed = output.rename_durably

    def rename(before: Path, after: Path) -> None:
        renamed(before, after)
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(output, "rename_durably", rename)
    told(*ORDERS, "--output", str(file), "--receipt", str(receipt))
    assert receipts.mistakes([file.read_bytes()], receipts.claims(json.loads(receipt.read_text()))) == []
    assert signal.getsignal(signal.SIGTERM) == before


class Startled(ThreadPoolExecutor):
    """Hears a signal when the thread runs already, and nobody has been told yet."""

    def submit(self, *arguments: Any, **more: Any) -> Future[Any]:
        future = super().submit(*arguments, **more)
        signal.raise_signal(signal.SIGTERM)
        return future


def test_signal_just_when_reading_begins_ends_it(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(settings, ENDLESS)
    monkeypatch.setattr(run_export, "ThreadPoolExecutor", Startled)
    with pytest.raises(SystemExit, match="143"):
        told("silent", "--output", str(file))
    assert os.listdir(file.parent) == []


LATE = """
import os, signal, sys
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "run_export", *sys.argv[1:]])
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signal_after_the_end_changes_nothing_about_the_exit_code(
    file: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "exportapp.settings")
    code, said = ended(start(argv=[sys.executable, "-c", LATE, *ORDERS, "--output", str(file)]))
    assert (code, said[:8]) == (0, b"25 rows,")


def interrupted(at: int, *arguments: str) -> tuple[int, bool]:
    """The exit code when SIGTERM comes at the line number `at` that the main thread runs, and whether it came."""
    lines = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith(
            ("/commands/run_export.py", "/management/output.py", "/management/signals.py")
        ):
            return None
        if event == "line" and callable(signal.getsignal(signal.SIGTERM)):
            lines += 1
            if lines == at:
                signal.raise_signal(signal.SIGTERM)
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        told(*arguments)
    except SystemExit as end:
        return int(str(end)), True
    finally:
        sys.settrace(tracing)
    return 0, lines >= at


def test_signal_at_any_line_leaves_all_or_nothing(file: Path) -> None:
    receipt = file.with_name("receipt")
    arguments = (*ORDERS, "--output", str(file), "--receipt", str(receipt))
    codes = []
    for at in itertools.count(1):
        file.write_text("the old one")
        receipt.write_text("the old receipt")
        code, came = interrupted(at, *arguments)
        assert sorted(os.listdir(file.parent)) == sorted([file.name, receipt.name]), at
        assert (code, file.read_text()[:4], receipt.read_text()[:4]) in ((143, "the ", "the "), (0, '"Id"', "{\n  ")), (
            at
        )
        if not came:
            break
        codes.append(code)
    assert codes.count(143) > 50


IMPATIENT = """
import sys
import django
django.setup()
from django.core.management import execute_from_command_line
from exportapp.management.commands import run_export
run_export.PATIENCE = 0.2
execute_from_command_line(["manage.py", "run_export", "endless", "--output", "-", "--receipt", sys.argv[1]])
"""


def test_signal_ends_it_though_nobody_reads_its_output(
    settings: Settings, file: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(settings, ENDLESS)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "exportapp.settings")
    process = start(argv=[sys.executable, "-c", IMPATIENT, str(file)])
    pipe = process.stdout
    assert pipe is not None
    full = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - 4096
    wait_until(lambda: process.poll() is not None or waiting(pipe.fileno()) > full, 60, "a full pipe")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert os.listdir(file.parent) == []


def waiting(descriptor: int) -> int:
    """How many bytes of a pipe are not read yet."""
    [count] = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))
    return int(count)


def test_terminal_shows_the_bar_and_in_the_end_one_line(file: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(*ORDERS, "--output", str(file)), cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # that is how a terminal ends
        while block := os.read(ours, 4096):
            shown += block
    os.close(ours)
    assert process.wait(60) == 0
    assert b"] about 0%  0 rows" in shown
    last, nothing = screen(shown.decode())
    assert last.startswith("25 rows, ")
    assert nothing == ""

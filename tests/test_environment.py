"""Settings from the environment: addresses are taken apart with their percent-encoding, and a wrong value is told with
what to write instead of stopping the start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db.utils import ConnectionHandler

from exportapp import environment, settings
from exportapp.environment import (
    Problem,
    database,
    env_bool,
    env_choice,
    env_list,
    env_number,
    env_secret,
    env_text,
    env_url,
    mail,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """What was noted as wrong in this test."""
    problems: list[Problem] = []
    monkeypatch.setattr(environment, "PROBLEMS", problems)
    return problems


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the variable X, and others by their names."""

    def put(value: str = "", **more: str) -> None:
        for name, text in {"X": value, **more}.items():
            monkeypatch.setenv(name, text)

    return put


# --- single values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", True),
        ("TRUE", True),
        (" yes ", True),
        ("on", True),
        ("0", False),
        ("No", False),
        ("off", False),
        ("", True),
    ],
)
def test_switch_is_on_or_off(env: Any, noted: list[Problem], text: str, value: bool) -> None:
    env(text)
    assert env_bool("X", True) is value
    assert env_bool("NOT_SET", False) is False
    assert noted == []


@pytest.mark.parametrize(
    ("text", "value"), [("", 5), ("7", 7), ("0.5", 0.5), (" 3 ", 3), ("1e3", 1000), ("0.25", 0.25)]
)
def test_number_is_read(env: Any, noted: list[Problem], text: str, value: float) -> None:
    env(text)
    assert env_number("X", 5, least=0.25) == value
    assert noted == []


@pytest.mark.parametrize("text", ["many", "0.2", "-1", "nan", "inf", "1e999", "1,5", "0x10"])
def test_wrong_number_is_noted_and_the_default_is_taken(env: Any, noted: list[Problem], text: str) -> None:
    env(text)
    assert env_number("X", 5, least=0.25) == 5
    assert noted == [Problem("X", f"{text!r} is not a number of at least 0.25", "Write a number such as 5.")]


def test_wrong_switch_is_noted_and_off(env: Any, noted: list[Problem]) -> None:
    env("perhaps")
    assert env_bool("X", True) is False
    assert noted == [Problem("X", "'perhaps' is neither yes nor no", "Write 1 or 0.")]


def test_wrong_choice_is_noted_and_the_default_is_taken(env: Any, noted: list[Problem]) -> None:
    env("warning")
    assert env_choice("X", "INFO", ("INFO", "WARNING")) == "WARNING"
    assert noted == []
    env("chatty")
    assert env_choice("X", "INFO", ("INFO", "WARNING")) == "INFO"
    assert noted == [Problem("X", "'chatty' is none of INFO, WARNING", "Write one of them.")]


def test_list_is_separated_by_commas(env: Any) -> None:
    env(" a, b ,,c ")
    assert env_list("X", ["d"]) == ["a", "b", "c"]
    env(" ")
    assert env_list("X", ["d"]) == ["d"]
    assert env_text("X", "e") == "e"


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secret_may_stand_in_a_file(env: Any, noted: list[Problem], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from the file\n")
    env("from the variable")
    assert env_secret("X") == "from the variable"
    env("from the variable", X_FILE=str(tmp_path / "secret"))
    assert env_secret("X") == "from the file"
    assert env_url("Y", "file:/x", ("file",), "") == "file:/x"
    assert noted == []


def test_address_may_stand_in_a_file(env: Any, noted: list[Problem], tmp_path: Path) -> None:
    (tmp_path / "address").write_text("mysql://user:secret@db/app\n")
    env(X_FILE=str(tmp_path / "address"))
    assert env_url("X", "sqlite:///x", ("mysql",), "") == "mysql://user:secret@db/app"
    assert noted == []


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_secret_file_that_cannot_be_read_is_noted(
    env: Any, noted: list[Problem], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    env("", X_FILE=str(path))
    assert env_secret("X", "default") == "default"
    [problem] = noted
    assert (problem.variable, problem.hint) == ("X_FILE", "Name a file that this user may read.")
    assert str(path) in problem.message


def test_key_that_nobody_sets_is_made_up_once_and_kept_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EXPORTAPP_SECRET_KEY", raising=False)
    monkeypatch.setattr(settings, "VAR", tmp_path)
    key = settings._secret_key()
    assert len(key) > 50
    assert settings._secret_key() == key
    assert (tmp_path / "secret-key").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("EXPORTAPP_SECRET_KEY", "one of ours")
    assert settings._secret_key() == "one of ours"


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["nonsense", "postgres://user:secret@db/app", "://", "mysql://user:secret@db:port/app", "mysql://db:99999/app",
     "mysql://[::1/app", "mysql://user:sec/ret@db/app"],
)  # fmt: skip
def test_wrong_address_is_noted_without_what_it_says(env: Any, noted: list[Problem], address: str) -> None:
    env(address)
    assert env_url("X", "sqlite:///x", ("sqlite", "mysql"), "mysql://user:password@host:3306/app") == "sqlite:///x"
    [problem] = noted
    assert problem.variable == "X"
    assert problem.hint == "Write it like mysql://user:password@host:3306/app"
    for part in ("secret", "sec", "ret@", address):
        assert part not in problem.message


STRANGE = "p%40s%2Fs%3A%23%25w%C3%B6rd"
PASSWORD = "p@s/s:#%wörd"


def test_mysql_address_is_taken_apart(env: Any, noted: list[Problem], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    env(f"mysql://us%40er:{STRANGE}@db.example.com:3307/app%20db?ssl_ca={tmp_path}/ca.pem")
    found = database(env_url("X", "", ("mysql",), ""))
    assert noted == []
    assert (found["ENGINE"], found["HOST"], found["PORT"]) == ("django.db.backends.mysql", "db.example.com", "3307")
    assert (found["USER"], found["PASSWORD"], found["NAME"]) == ("us@er", PASSWORD, "app db")
    assert found["OPTIONS"]["ssl"] == {"ca": f"{tmp_path}/ca.pem"}
    assert "time_zone='+00:00'" in found["OPTIONS"]["init_command"]
    assert found["OPTIONS"]["isolation_level"] == "read committed"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("mysql://", "names no host"),
        ("mysql://user:opensesame@host", "names no database"),
        ("mysql://user:opensesame@host:0/app", "the port 0"),
        ("mysql://user:opensesame@host:port/app", "not understood"),
        ("mysql://user:open#sesame@host/app", "not understood"),
        ("mysql://host/app?opensesame=1&ssl_ca=/nope", "unknown option"),
        ("mysql://host/app?ssl_ca=/nope/opensesame", "not there"),
        ("smtp://", "names no host"),
        ("file://relative/opensesame", "by its whole path"),
        ("sqlite://", "names no database"),
        ("postgres://opensesame@host/app", "begins with none of mysql:"),
    ],
)
def test_address_that_leads_nowhere_is_noted(env: Any, noted: list[Problem], address: str, told: str) -> None:
    env(address)
    assert env_url("X", "default", ("mysql", "sqlite", "smtp", "file"), "mysql://host/app") == "default"
    [problem] = noted
    assert told in problem.message
    assert problem.hint == "Write it like mysql://host/app"
    assert "sesame" not in problem.message.replace("option, opensesame", "")


def test_no_address_is_fine_where_none_is_needed(env: Any, noted: list[Problem]) -> None:
    env("")
    assert (env_url("X", "", ("https",), ""), noted) == ("", [])


def test_mysql_address_may_be_short() -> None:
    found = database("mysql://db/app")
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"]) == ("", "", "db", "3306")
    assert "ssl" not in found["OPTIONS"]
    assert (
        database("mysql://app@localhost/app?unix_socket=/run/mysqld/mysqld.sock")["HOST"] == "/run/mysqld/mysqld.sock"
    )


@pytest.mark.parametrize(
    ("address", "file"),
    [("sqlite:////var/lib/app.sqlite3", "/var/lib/app.sqlite3"), ("sqlite:///app%20db", "app db")],
)
def test_sqlite_address_is_a_file(address: str, file: str) -> None:
    found = database(address)
    assert (found["ENGINE"], found["NAME"]) == ("django.db.backends.sqlite3", file)
    assert found["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_sqlite_app_database_lets_readers_read_while_one_writes(tmp_path: Path) -> None:
    app = ConnectionHandler({"default": database(f"sqlite:///{tmp_path}/app.sqlite3")})["default"]
    opened = app.get_new_connection(app.get_connection_params())
    assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    opened.close()


@pytest.mark.parametrize(
    ("address", "port", "ssl", "tls"),
    [
        (f"smtp://us%40er:{STRANGE}@mail.example.com", 25, False, False),
        (f"smtps://us%40er:{STRANGE}@mail.example.com", 465, True, False),
        (f"smtp+tls://us%40er:{STRANGE}@mail.example.com", 587, False, True),
        (f"smtp+tls://us%40er:{STRANGE}@mail.example.com:2525", 2525, False, True),
    ],
)
def test_mail_address_is_taken_apart(address: str, port: int, ssl: bool, tls: bool) -> None:
    found = mail(address)
    assert found["EMAIL_BACKEND"].endswith("smtp.EmailBackend")
    assert (found["EMAIL_HOST"], found["EMAIL_PORT"]) == ("mail.example.com", port)
    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == ("us@er", PASSWORD)
    assert (found["EMAIL_USE_SSL"], found["EMAIL_USE_TLS"]) == (ssl, tls)
    assert found["EMAIL_TIMEOUT"]


def test_mails_may_be_printed_or_laid_into_a_folder() -> None:
    assert mail("console:")["EMAIL_BACKEND"].endswith("console.EmailBackend")
    found = mail("file:///var/my%20mail")
    assert (found["EMAIL_BACKEND"].rpartition(".")[2], found["EMAIL_FILE_PATH"]) == ("EmailBackend", "/var/my mail")


# --- all of them ------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EXPORTAPP_", "SOURCE_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**clean, "EXPORTAPP_VAR": str(tmp_path), **env},
        capture_output=True,
        text=True,
        check=False,
    )


WRONG = {
    "EXPORTAPP_DEBUG": "maybe",
    "EXPORTAPP_BASE_URL": "exports.example.com",
    "EXPORTAPP_DATABASE_URL": "postgres://user:opensesame@db/app",
    "EXPORTAPP_BROKER_URL": "redis://:opensesame@redis:6379/0",
    "EXPORTAPP_STORAGE_URL": "/srv/files",
    "EXPORTAPP_MAIL_URL": "mail.example.com",
    "EXPORTAPP_LINK_SECONDS": "9999999",
    "EXPORTAPP_S3_ENDPOINT": "127.0.0.1:8333",
    "EXPORTAPP_S3_PUBLIC_ENDPOINT": "files.example.com",
    "EXPORTAPP_MAIL_FROM": "the desk",
    "EXPORTAPP_ALLOWED_HOSTS": "https://exports.example.com",
    "EXPORTAPP_LEASE_SECONDS": "1",
    "EXPORTAPP_SWEEP_SECONDS": "0",
    "EXPORTAPP_RING_AGAIN_SECONDS": "-1",
    "EXPORTAPP_RETRY_SECONDS": "x",
    "EXPORTAPP_CHUNK_SECONDS": "0",
    "EXPORTAPP_CHUNK_ROWS": "none",
    "EXPORTAPP_STEPS_PER_EXPORT": "0",
    "EXPORTAPP_STEPS_PER_PERSON": "0",
    "EXPORTAPP_STEPS_IN_ALL": "inf",
    "EXPORTAPP_SSL_REDIRECT": "maybe",
    "EXPORTAPP_BEHIND_PROXY": "maybe",
    "EXPORTAPP_LOG_LEVEL": "chatty",
    "EXPORTAPP_SECRET_KEY_FILE": "/nowhere/secret",
    "EXPORTAPP_DATASETS": "/nowhere/datasets.toml",
}


def test_all_wrong_values_are_told_at_once_with_what_to_write_and_no_password(tmp_path: Path) -> None:
    done = run(tmp_path, "manage.py", "check", **WRONG)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "Traceback" not in told
    assert "opensesame" not in told
    for name in WRONG.keys() - {"EXPORTAPP_DATASETS"}:
        assert f"(exportapp.E001) {name}: " in told
    assert "(exportapp.E010) datasets.toml: /nowhere/datasets.toml: cannot be read" in told
    assert told.count("HINT: ") == len(WRONG) + told.count("exportapp.W")
    assert "HINT: Write it like mysql://user:password@host:3306/exportapp" in told
    assert "HINT: Set EXPORTAPP_DATASETS to a file." in told


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(tmp_path, "manage.py", "check", EXPORTAPP_VAR=str(tmp_path / "file/var"), TMPDIR=str(tmp_path))
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in told
    assert f"EXPORTAPP_VAR: the folder {tmp_path}/file/var cannot be made: Not a directory." in told


PRINT = """
import json, exportapp.settings as s
names = ("SECRET_KEY ALLOWED_HOSTS CSRF_TRUSTED_ORIGINS BROKER_URL STORAGE_URL S3_PUBLIC_ENDPOINT SECURE_SSL_REDIRECT "
         "SESSION_COOKIE_SECURE CSRF_COOKIE_SECURE SECURE_HSTS_SECONDS BASE_URL EMAIL_HOST DEFAULT_FROM_EMAIL "
         "LEASE_SECONDS BEAT_SECONDS SELF_STOP_SECONDS STEPS_IN_ALL").split()
from exportapp.environment import PROBLEMS
print(json.dumps({name: getattr(s, name, None) for name in names} | {
    "database": s.DATABASES["default"]["ENGINE"], "PROBLEMS": [one.variable for one in PROBLEMS]}))
"""


def test_companys_settings_fit_together(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 60)
    done = run(
        tmp_path, "-c", PRINT,
        EXPORTAPP_SECRET_KEY_FILE=str(tmp_path / "key"),
        EXPORTAPP_BASE_URL="https://exports.example.com/",
        EXPORTAPP_DATABASE_URL="mysql://app:secret@db/app",
        EXPORTAPP_BROKER_URL=f"amqps://app:{STRANGE}@rabbitmq:5671/desk",
        EXPORTAPP_STORAGE_URL="s3://bucket/prefix",
        EXPORTAPP_S3_ENDPOINT="http://s3.internal",
        EXPORTAPP_MAIL_URL="smtp+tls://mail.example.com",
        EXPORTAPP_LEASE_SECONDS="120",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["PROBLEMS"] == []
    assert found["SECRET_KEY"] == "k" * 60
    assert found["ALLOWED_HOSTS"] == ["127.0.0.1", "exports.example.com", "localhost"]
    assert found["CSRF_TRUSTED_ORIGINS"] == [found["BASE_URL"]] == ["https://exports.example.com"]
    assert found["BROKER_URL"] == f"amqps://app:{STRANGE}@rabbitmq:5671/desk"
    assert found["S3_PUBLIC_ENDPOINT"] == "http://s3.internal"
    assert all(found[name] for name in ("SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"))
    assert found["SECURE_HSTS_SECONDS"] > 0
    assert (found["database"], found["EMAIL_HOST"]) == ("django.db.backends.mysql", "mail.example.com")
    assert found["BEAT_SECONDS"] * 3 < found["SELF_STOP_SECONDS"] < found["LEASE_SECONDS"] == 120


def test_laptop_needs_no_setting_at_all(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", PRINT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["PROBLEMS"] == []
    assert (found["database"], found["BROKER_URL"]) == ("django.db.backends.sqlite3", "memory://localhost")
    assert found["STORAGE_URL"] == f"file://{tmp_path}/files"
    assert not found["SECURE_SSL_REDIRECT"]


def test_public_address_needs_a_key_of_its_own(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", PRINT, EXPORTAPP_BASE_URL="https://exports.example.com")
    assert json.loads(done.stdout)["PROBLEMS"] == ["EXPORTAPP_SECRET_KEY"]

"""The README's four commands, run word for word against a private server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import MariaDB

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "choose-one"


def the_four_commands() -> str:
    section = (ROOT / "README.md").read_text().split("## Your own MySQL")[1]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found
    assert found[1].count("\n") == 4
    return found[1]


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def shop(mariadb: MariaDB) -> MariaDB:
    mariadb.sql("DROP DATABASE IF EXISTS myshop; DROP USER IF EXISTS 'exportapp'@'%'")
    mariadb.create_database("myshop")
    mariadb.sql(
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, placed_at DATETIME NOT NULL, total DECIMAL(10,2), KEY (placed_at));"
        "CREATE VIEW big_orders AS SELECT * FROM orders WHERE total > 100;"
        "INSERT INTO orders VALUES (1, '2026-01-01 00:00:00', 12.50)",
        "myshop",
    )
    return mariadb


def test_four_commands_lead_to_a_desk_on_ones_own_database(shop: MariaDB, tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    # The administrator's client asks for a password and uses the usual port: this one knows the private server's.
    program(bin_folder, "mysql", f'exec mariadb --no-defaults --socket={shop.root_socket} -u root -e "$7"')
    program(bin_folder, "make", 'echo "make $*"; exec .venv/bin/python manage.py check --fail-level WARNING')
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "manage.py").symlink_to(ROOT / "manage.py")
    commands = the_four_commands().replace("127.0.0.1:3306", f"127.0.0.1:{shop.port}")
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "EXPORTAPP_VAR": str(tmp_path / "var")}

    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "make run" in done.stdout
    assert "no issues" in done.stdout + done.stderr
    declared = (tmp_path / "my-datasets.toml").read_text()
    assert "[datasets.orders]" in declared
    assert "[datasets.big_orders]" in declared
    assert PASSWORD not in declared


@pytest.mark.parametrize(
    "statement", ["INSERT INTO orders VALUES (2, NOW(), 1)", "CREATE TABLE mine (id INT)", "SELECT * FROM mysql.user"]
)
def test_user_of_the_readme_may_only_read_that_database(shop: MariaDB, statement: str) -> None:
    grant = re.search(r'-e "(.*?)"\n', the_four_commands())
    assert grant
    shop.sql(grant[1])
    client = ["mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", str(shop.port), "-u", "exportapp", f"-p{PASSWORD}"]
    read = subprocess.run(
        [*client, "myshop", "-e", "SELECT * FROM orders"], capture_output=True, text=True, check=False
    )
    assert "12.50" in read.stdout
    tried = subprocess.run([*client, "myshop", "-e", statement], capture_output=True, text=True, check=False)
    assert tried.returncode != 0
    assert "ERROR 1142" in tried.stderr or "ERROR 1044" in tried.stderr

"""A private MariaDB server, and its command line client as an oracle independent of any Python driver."""

import os
import re
import subprocess
from collections.abc import Sequence
from typing import ClassVar

from .base import HOST, Server, find_program

PASSWORD = "secret"  # guards nothing but a test server on the loopback interface


class MariaDB(Server):
    name: ClassVar[str] = "mariadb"

    def __init__(self, extra_options: Sequence[str] = ()) -> None:
        super().__init__()
        self.extra_options = tuple(extra_options)
        self.root_socket = str(self.folder / "sock")  # root needs no password here; the folder is private
        self._data = self.folder / "data"

    def _prepare(self) -> None:
        program = find_program("mariadb-install-db", "mariadb-server")
        result = subprocess.run(
            [
                program,
                "--no-defaults",
                "--force",  # it gives up where "localhost" does not resolve, as in a bare chroot
                f"--datadir={self._data}",
                # In /tmp another server that starts just then would take away its temporary tables.
                f"--tmpdir={self.folder}",
                *_as_root(),
                "--skip-test-db",
                "--skip-name-resolve",
                "--auth-root-authentication-method=normal",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"mariadb-install-db failed\n{result.stdout}{result.stderr}")

    def _command(self) -> list[str]:
        return [
            find_program("mariadbd", "mariadb-server"),
            "--no-defaults",
            *_as_root(),
            f"--datadir={self._data}",
            f"--socket={self.root_socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--tmpdir={self.folder}",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_unicode_ci",
            *self.extra_options,
        ]

    def _is_ready(self) -> bool:
        return self._client("SELECT 1", None).returncode == 0

    def _after_first_start(self) -> None:
        self.sql(
            f"CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO app@'%' WITH GRANT OPTION; "
            f"ALTER USER root@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'"
        )

    def url(self, database: str, user: str = "app", password: str = PASSWORD) -> str:
        """A mysql:// address over TCP; the users "app" and "root" exist."""
        return f"mysql://{user}:{password}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty utf8mb4 database and return the address for the user "app"."""
        if not re.fullmatch(r"\w+", name, re.ASCII):
            raise ValueError(f"not a plain database name: {name!r}")
        self.sql(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self.url(name)

    def sql(self, statement: str, database: str | None = None) -> str:
        """Run statements as root through the `mariadb` client: a line a row, values separated by tabs."""
        result = self._client(statement, database)
        if result.returncode:
            raise RuntimeError(f"mariadb client: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout.decode("utf-8")

    def _client(self, statement: str, database: str | None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [
                # The client guesses its character set from the locale, and then an emoji arrives as "?".
                find_program("mariadb", "mariadb-client"), "--no-defaults", "--default-character-set=utf8mb4",
                "--batch", "--raw", "--skip-column-names", f"--socket={self.root_socket}", "--user=root",
                *([f"--database={database}"] if database else []),
            ],
            input=statement.encode("utf-8"), capture_output=True, check=False,
        )  # fmt: skip


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []  # mariadbd refuses to run as root unless told to

"""The private MariaDB of the benchmark: the tests' server, with a data folder that is kept between runs."""

from __future__ import annotations

from pathlib import Path

from tests.services import MariaDB

DATABASE = "bench"
OPTIONS = (
    "--innodb-buffer-pool-size=4G",  # holds all tables of scale 1: what is measured is not the disk
    "--innodb-log-file-size=512M",
    "--innodb-flush-log-at-trx-commit=0",
    "--max-allowed-packet=64M",  # rows of 16 MB
)


class BenchServer(MariaDB):
    def __init__(self, data: Path) -> None:
        super().__init__(OPTIONS)
        self._data = data

    def _prepare(self) -> None:
        if not (self._data / "mysql").exists():
            super()._prepare()

    def _after_first_start(self) -> None:
        if self.sql("SELECT COUNT(*) FROM mysql.user WHERE User = 'app'").strip() == "0":
            super()._after_first_start()
        self.sql(f"CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4")

"""Fixtures of all tests: private servers, started once at first use, and the cast: alice the owner, bob a colleague,
charlie a stranger, root the operator."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_VAR = tempfile.TemporaryDirectory(prefix="exportapp-tests-")
os.environ["EXPORTAPP_VAR"] = _VAR.name  # before Django reads its settings: tests never touch the app's own data

import pytest  # noqa: E402

from tests.services import MailServer, MariaDB, Moto, RabbitMQ, SeaweedFS  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    with SeaweedFS() as server:
        yield server


@pytest.fixture
def mailserver() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server

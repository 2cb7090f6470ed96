"""Fixtures of all tests: private servers, started once at first use, and the cast: alice the owner, bob a colleague,
charlie a stranger, root the operator."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

_VAR = tempfile.TemporaryDirectory(prefix="exportapp-tests-")
# For the processes that tests start. pytest-django has read the settings of this one already: `desk` moves those.
os.environ["EXPORTAPP_VAR"] = _VAR.name

import pytest  # noqa: E402
from django.contrib.auth.models import Group, User  # noqa: E402
from pytest_django import Settings  # noqa: E402

from tests.scenes import DATASETS, write_shop  # noqa: E402
from tests.services import MailServer, MariaDB, Moto, RabbitMQ, SeaweedFS, Server  # noqa: E402

AnyServer = TypeVar("AnyServer", bound=Server)


@contextmanager
def started(server: AnyServer, config: pytest.Config) -> Iterator[AnyServer]:
    """Runs a server for the session, and lets what it says of its start through to the terminal."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as ending:
        with capture.global_and_fixture_disabled():
            print()
            ending.enter_context(server)
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that the processes of a test run end at about the same time."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/faults/", "tests/journeys/")))


@pytest.fixture(scope="session")
def mariadb(pytestconfig: pytest.Config) -> Iterator[MariaDB]:
    with started(MariaDB(), pytestconfig) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(pytestconfig: pytest.Config) -> Iterator[RabbitMQ]:
    with started(RabbitMQ(), pytestconfig) as server:
        yield server


@pytest.fixture(scope="session")
def moto(pytestconfig: pytest.Config) -> Iterator[Moto]:
    with started(Moto(), pytestconfig) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(pytestconfig: pytest.Config) -> Iterator[SeaweedFS]:
    with started(SeaweedFS(), pytestconfig) as server:
        yield server


@pytest.fixture
def mailserver() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def desk(db: None, settings: Settings, tmp_path: Path) -> Path:
    """A desk of its own: datasets, files and quick passwords. Gives its folder."""
    path = tmp_path / "datasets.toml"
    path.write_text(DATASETS)
    settings.DATASETS_FILE = path
    settings.VAR = tmp_path
    settings.STORAGE_URL = f"file://{tmp_path}/files"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return tmp_path


@pytest.fixture
def shop(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The desk's source, an SQLite file: 25 orders in January 2026, and two products."""
    path = desk / "shop.sqlite3"
    write_shop(path)
    monkeypatch.setenv("SOURCE_SHOP_URL", f"sqlite:///{path}")
    return path


@pytest.fixture
def person(desk: Path) -> Callable[..., User]:
    """Makes a person; the password is the name and '-password'."""

    def make(name: str, *groups: str, **more: Any) -> User:
        made = User.objects.create_user(name, f"{name}@example.com", f"{name}-password", **more)
        made.groups.set([Group.objects.get_or_create(name=group)[0] for group in groups])
        return made

    return make


@pytest.fixture
def alice(person: Callable[..., User]) -> User:
    return person("alice", "sales")


@pytest.fixture
def bob(person: Callable[..., User]) -> User:
    return person("bob", "sales")


@pytest.fixture
def charlie(person: Callable[..., User]) -> User:
    return person("charlie")


@pytest.fixture
def root(person: Callable[..., User]) -> User:
    return person("root", is_staff=True, is_superuser=True)

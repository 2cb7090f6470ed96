"""The cast of the pages: alice who owns exports, bob her colleague, charlie who is not in the group, root the operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from pytest_django import Settings

from tests.web.scenes import DATASETS


@pytest.fixture(autouse=True)
def desk(db: None, settings: Settings, tmp_path: Path) -> Path:
    """A desk of its own for every test: datasets, files and quick passwords. Gives its folder."""
    path = tmp_path / "datasets.toml"
    path.write_text(DATASETS)
    settings.DATASETS_FILE = path
    settings.STORAGE_URL = f"file://{tmp_path}/files"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return tmp_path


@pytest.fixture
def person(db: None) -> Callable[..., User]:
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


@pytest.fixture
def alices(client: Client, alice: User) -> Client:
    """A browser in which alice is signed in."""
    client.force_login(alice)
    return client

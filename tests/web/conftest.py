"""The pages are always tested on a desk of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client


@pytest.fixture(autouse=True)
def _desk(desk: Path) -> None:
    """Every test has one, whether it names it or not."""


@pytest.fixture
def alices(client: Client, alice: User) -> Client:
    """A browser in which alice is signed in."""
    client.force_login(alice)
    return client

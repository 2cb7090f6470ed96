"""What journeys share that only use it: the desk that a newcomer starts, one with every state of an export, a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.journeys.gallery import chromium
from tests.journeys.quickstart import Quickstart
from tests.journeys.staged import Staged, staged_desk


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    with Quickstart(tmp_path_factory.mktemp("desk")) as quickstart:
        yield quickstart.start()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    with staged_desk(tmp_path_factory.mktemp("staged")) as desk:
        yield desk

"""The desk that a newcomer starts, shared by the journeys that only use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.quickstart import Quickstart


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    with Quickstart(tmp_path_factory.mktemp("desk")) as quickstart:
        yield quickstart.start()

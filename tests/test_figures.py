"""Figures are counted in the background: one dataset at a time, by whoever takes its lease, and again when they are old."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from pytest_django import Settings

from exportapp import datasets, dispatcher, figures, lifecycle
from exportapp.datasets import Dataset
from exportapp.dispatcher import Dispatcher
from exportapp.engine.errors import ExportError
from exportapp.engine.readers.base import Histogram
from exportapp.models import DatasetFigures, ExportState
from tests.scenes import ask, held
from tests.services import MariaDB
from worker import tasks
from worker.heart import HEART

pytestmark = pytest.mark.usefixtures("shop")

ALL = ["orders", "products", "regional", "revenue"]


def declared(name: str = "orders") -> Dataset:
    return datasets.catalogue().datasets[name]


def row(name: str = "orders") -> DatasetFigures:
    return DatasetFigures.objects.get(dataset=name)


def all_counted() -> list[str]:
    """Counts whatever is due, one after the other."""
    return sorted(iter(figures.refresh_one, ""))


def older(**ago: float) -> None:
    DatasetFigures.objects.update(tried_at=lifecycle.now() - timedelta(**ago))


def change(desk: Path, old: str, new: str) -> None:
    path = desk / "datasets.toml"
    path.write_text(path.read_text().replace(old, new))


# --- counting ---------------------------------------------------------------------------------------------------------


def test_each_dataset_is_counted_once() -> None:
    assert all_counted() == ALL
    known = figures.of(declared())
    assert known
    assert (known.rows, known.rows_exact, known.days[0], len(known.days)) == (25, True, ("2026-01-01", 1), 25)
    assert known.oldest == datetime(2026, 1, 1, 10, tzinfo=ZoneInfo("UTC"))
    assert known.newest == datetime(2026, 1, 25, 10, tzinfo=ZoneInfo("UTC"))
    assert lifecycle.now() - known.computed_at < timedelta(minutes=1)
    assert (row().error, row().lease_until) == ("", None)
    assert row().seconds is not None


def test_a_dataset_without_a_time_has_its_rows_alone() -> None:
    all_counted()
    known = figures.of(declared("products"))
    assert known
    assert (known.rows, known.days, known.newest) == (2, (), None)


def test_figures_of_a_real_server_come_into_the_same_shape(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = "INSERT INTO orders SELECT seq, '2026-01-01 10:00' + INTERVAL seq DAY FROM seq_0_to_24"
    monkeypatch.setenv("SOURCE_SHOP_URL", mariadb.create_database("figures_shop"))
    mariadb.sql(
        "CREATE TABLE orders (id INT PRIMARY KEY, placed_at DATETIME NOT NULL, INDEX (placed_at))", "figures_shop"
    )
    mariadb.sql(filled, "figures_shop")
    all_counted()
    known = figures.of(declared())
    assert known
    assert (known.rows, known.days[-1], known.newest) == (
        25, ("2026-01-25", 1), datetime(2026, 1, 25, 10, tzinfo=ZoneInfo("UTC")),
    )  # fmt: skip
    assert figures.of(declared("products")) is None
    assert "no longer has what this dataset names" in row("products").error
    mariadb.sql("DROP DATABASE figures_shop")


def test_they_are_counted_again_when_they_are_old(settings: Settings) -> None:
    all_counted()
    older(hours=5.9)
    assert all_counted() == []
    older(hours=6.1)
    assert all_counted() == ALL
    settings.FIGURES_HOURS = 0
    older(days=60)
    assert all_counted() == []


def test_the_oldest_is_counted_first() -> None:
    all_counted()
    older(hours=7)
    DatasetFigures.objects.filter(dataset="revenue").update(tried_at=lifecycle.now() - timedelta(hours=8))
    assert figures.refresh_one() == "revenue"


def test_a_changed_definition_is_counted_anew_and_its_old_figures_are_not_shown(shop: Path) -> None:
    all_counted()
    change(shop.parent, 'label = "E-mail', 'label = "Mail')
    assert all_counted() == [], "a label changes no figures"
    change(shop.parent, 'table = "orders"\nkey', 'query = "SELECT * FROM orders WHERE id < 11"\nkey')
    assert figures.of(declared()) is None
    assert all_counted() == ["orders"]
    known = figures.of(declared())
    assert known and known.rows == 5


def test_what_a_row_rule_keeps_apart_is_not_shown_to_people() -> None:
    all_counted()
    assert figures.of(declared("regional"))
    shown = figures.shown(datasets.catalogue().datasets.values())
    assert sorted(shown) == ["orders", "products", "revenue"]
    assert (shown["orders"].rows, shown["orders"].days) == (25, ())


# --- failing ----------------------------------------------------------------------------------------------------------


def test_a_source_that_fails_is_noted_for_operators_and_tried_again_later(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_counted()
    older(hours=7)
    shop.rename(shop.with_name("away"))
    assert all_counted() == ALL
    assert row().error.startswith("The table no longer has what this dataset names.")
    assert "unable to open" in row().error
    known = figures.of(declared())
    assert known and known.rows == 25, "what was known before stays"
    older(minutes=14)
    assert all_counted() == []
    older(minutes=16)
    shop.with_name("away").rename(shop)
    assert all_counted() == ALL
    assert row().error == ""


def test_a_mistake_of_ours_is_noted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_look", lambda *_: 1 / 0)
    assert figures.refresh_one() == "orders"
    assert row().error == "ZeroDivisionError('division by zero')"


def test_a_source_without_an_address_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_SHOP_URL", "")
    assert all_counted() == []


class Silent:
    """A reader whose source never answers, until it is killed."""

    killed = False

    def kill(self) -> None:
        self.killed = True


def test_a_look_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "LOOK_SECONDS", 0.3)
    reader: Any = Silent()
    with figures._bounded(reader, lambda: False):
        for _ in range(100):
            if reader.killed:
                break
            figures.time.sleep(0.05)
    assert reader.killed


def test_a_worker_that_is_to_end_gives_the_look_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: Any) -> Histogram:
        raise ExportError("The database broke off the connection.")

    with monkeypatch.context() as patch:
        patch.setattr(figures, "_look", cut)
        assert figures.refresh_one(lambda: True) == "orders"
    assert (row().error, row().lease_until, row().tried_at) == ("", None, None)
    assert figures.refresh_one() == "orders"


# --- who counts -------------------------------------------------------------------------------------------------------


def test_only_one_of_two_workers_that_saw_the_same_takes_it() -> None:
    [seen], [also] = (figures._due(lifecycle.now()) for _ in range(2))
    assert figures._claim(seen)
    assert figures._claim(also) is None


def test_only_one_of_a_source_is_counted_at_a_time_and_a_lease_ends() -> None:
    [seen] = figures._due(lifecycle.now())
    assert figures._claim(seen)
    assert figures._due(lifecycle.now()) == []
    DatasetFigures.objects.update(lease_until=lifecycle.now() - timedelta(seconds=1))
    assert figures._due(lifecycle.now()) != []


def test_whoever_lost_the_lease_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any) -> Histogram:
        DatasetFigures.objects.update(lease_until=lifecycle.now() + timedelta(seconds=300), rows=7)
        return Histogram(1, True)

    monkeypatch.setattr(figures, "_look", late)
    figures.refresh_one()
    assert (row().rows, row().computed_at) == (7, None)
    assert row().lease_until is not None


def test_exports_come_first_at_a_source_without_a_connection_to_spare(shop: Path, alice: User) -> None:
    change(shop.parent, "[sources.shop]", "[sources.shop]\nconnections = 1")
    held("chunk", alice)
    assert figures.refresh_one() == ""
    change(shop.parent, "connections = 1", "connections = 2")
    assert figures.refresh_one() == "orders"


@pytest.fixture
def _no_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HEART, "start", lambda: None)


@pytest.mark.usefixtures("_no_heart")
def test_a_doorbell_that_finds_no_step_counts_one_dataset_and_one_that_does_counts_none(alice: User) -> None:
    export = ask(alice)
    tasks.work(figures.HINT)
    export.refresh_from_db()
    assert export.state == ExportState.READY
    assert DatasetFigures.objects.count() == 0
    tasks.work(figures.HINT)
    assert [one.dataset for one in DatasetFigures.objects.all()] == ["orders"]


def test_a_worker_whose_own_database_is_away_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(at: datetime) -> list[Any]:
        raise OperationalError(2006, "gone")

    monkeypatch.setattr(figures, "_due", away)
    tasks.work()


# --- ringing ----------------------------------------------------------------------------------------------------------


def test_the_dispatcher_rings_for_what_is_due_and_not_again_at_once(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    rung: list[int] = []

    class Bell:
        def ring(self, steps: Iterable[int]) -> None:
            rung.extend(steps)

        def depth(self) -> int:
            return 0

    monkeypatch.setattr(dispatcher, "open_doorbell", lambda url: Bell())
    monkeypatch.setattr(figures, "REMIND_SECONDS", 0)
    desk = Dispatcher()
    desk._ring()
    desk._ring()
    assert rung == [figures.HINT]
    assert figures.refresh_one() == "orders"
    desk._ring()
    assert len(rung) == 2, "the next dataset is due"
    settings.RING_AGAIN_SECONDS = 0
    desk._ring()
    assert len(rung) == 3
    all_counted()
    desk._ring()
    assert len(rung) == 3

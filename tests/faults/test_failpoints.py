"""A worker is killed with SIGKILL at each boundary of its work, between what it writes and what it records. Whatever the
point: the export ends ready by itself with the right file and its mail, and nothing that was recorded is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.faults.breakable import NOTES, BreakableDesk, csv_of, files_below, mails_about, objects_in, s3_env
from tests.faults.failing import POINTS
from tests.services import MailServer, MariaDB, Moto, RabbitMQ, free_port

UPLOADING = (
    "middle of a piece",
    "piece written without its name",
    "piece finished",
    "middle of the assembly",
    "file written without its name",
    "file assembled",
)
# The killed one held no step.
WITHOUT_A_STEP = ("plan recorded", "claim not committed", "piece recorded", "published", "mail recorded")
PARTS = {"local": 3, "s3": 2}
CASES = [("local", point) for point in POINTS] + [("s3", point) for point in UPLOADING]


@dataclass
class Aftermath:
    """A desk where a worker was killed at each point, when all has come to its end."""

    desk: BreakableDesk
    mails: dict[str, list[str]]
    stored: Callable[[], set[str]]
    read: Callable[[str], bytes]
    expected: bytes


@pytest.fixture(scope="module")
def aftermaths(
    mariadb: MariaDB, rabbitmq: RabbitMQ, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Aftermath]]:
    made: dict[str, Aftermath | None] = {}
    with ExitStack() as ending:

        def aftermath(store: str) -> Aftermath:
            if store not in made:
                made[store] = None  # one desk that hangs is enough
                moto = request.getfixturevalue("moto") if store == "s3" else None
                made[store] = _break(ending, mariadb, rabbitmq, moto)
            if (after := made[store]) is None:
                pytest.fail(f"the desk that stores on {store} did not come to its end")
            return after

        yield aftermath


def _break(ending: ExitStack, mariadb: MariaDB, rabbitmq: RabbitMQ, moto: Moto | None) -> Aftermath:
    """Has an export for each point, all at once, at a desk of their own."""
    mailserver = ending.enter_context(MailServer())
    env = {"EXPORTAPP_MAIL_URL": mailserver.url, "EXPORTAPP_RETRY_SECONDS": "0.5", "EXPORTAPP_RING_AGAIN_SECONDS": "1"}
    bucket = moto.create_bucket(f"failpoints-{free_port()}") if moto else ""
    # A part of an upload has 8 MiB: only pieces above that are open uploads when their worker is killed.
    rows, width, points, more = (10_000, 4800, UPLOADING, "9000000") if moto else (15_000, 20, tuple(POINTS), "1")
    env |= s3_env(moto, bucket) if moto else {}
    env["EXPORTAPP_CHUNK_ROWS"] = "5000"
    desk = ending.enter_context(BreakableDesk(mariadb, rabbitmq, NOTES, env))
    desk.furnish(rows, width)
    desk.ask_for(dict.fromkeys(points, "notes"))
    desk.start_dispatcher()
    desk.start_failing_worker("SIGKILL", concurrency=3, EXPORTAPP_FAULT_BYTES=more)
    desk.wait_for_end()
    desk.processes.kill("failing")

    def read(name: str) -> bytes:
        if moto:
            return bytes(moto.client().get_object(Bucket=bucket, Key=f"desk/{name}")["Body"].read())
        return (desk.var / "files" / name).read_bytes()

    def stored() -> set[str]:
        return objects_in(moto, bucket) if moto else files_below(desk.var / "files")

    return Aftermath(desk, mails_about(mailserver, points), stored, read, csv_of(desk))


@pytest.mark.parametrize(("store", "point"), CASES, ids=[f"{store}-{point}" for store, point in CASES])
def test_kill_at_any_point_costs_one_step_and_nothing_else(
    aftermaths: Callable[[str], Aftermath], store: str, point: str
) -> None:
    after = aftermaths(store)
    desk = after.desk
    assert point in desk.broken(), "no worker came to this point"

    state, file_name = desk.one(point, "state, file_name")
    assert state == "ready"
    assert after.read(file_name) == after.expected

    lost = 0 if point in WITHOUT_A_STEP else 1
    steps = desk.steps(point, "kind, state, fence, crashes, attempts")
    assert [kind for kind, *_ in steps if kind == "chunk"] == ["chunk"] * PARTS[store]
    assert {state for _, state, *_ in steps} == {"done"}
    # A step's fence counts how often it was claimed: what had been recorded was not read or joined again.
    claimed_again = [kind for kind, _, fence, _, _ in steps if fence != "1"]
    assert claimed_again == [POINTS[point].kind] * lost
    assert sum(int(crashes) for *_, crashes, _ in steps) == lost
    assert sorted(int(attempts) for *_, attempts in steps)[-1 - lost :] == [1, 2][: 1 + lost]

    events = desk.events(point)
    assert events["taken back"] == lost
    assert events["retry"] == events["failed"] == 0
    assert events["ready"] == events["mailed"] == 1


@pytest.mark.parametrize("point", POINTS)
def test_one_mail_is_sent_and_a_second_only_after_a_kill_between_sending_and_recording(
    aftermaths: Callable[[str], Aftermath], point: str
) -> None:
    mails = aftermaths("local").mails[point]
    assert len(mails) == (2 if point == "mail sent" else 1)
    assert len(set(mails)) == 1, "a mail system drops the second copy by its Message-ID"


@pytest.mark.parametrize("store", ["local", "s3"])
def test_tidied_store_holds_the_published_files_and_nothing_else(
    aftermaths: Callable[[str], Aftermath], store: str
) -> None:
    after = aftermaths(store)
    assert after.stored() == after.desk.published()
    assert len(after.stored()) == len(POINTS if store == "local" else UPLOADING)

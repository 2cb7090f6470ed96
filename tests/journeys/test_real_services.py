"""The whole way on real services: asked for in the form, written by workers, found by the link in the mail, and then
compared byte by byte with what the database's own client says of the table."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from exportapp.sample import write_shop
from tests.journeys.desk import ROOT, Desk
from tests.journeys.meddler import Meddler
from tests.journeys.visitor import Visitor
from tests.services import MailServer, MariaDB, Moto, RabbitMQ, SeaweedFS, free_port, wait_until
from tests.services.s3 import REGION

ORDERS = 12_000

TEXTS = {"status", "email", "comment", "note"}
ORDER_COLUMNS = ["id", "placed_at", "status", "total", "comment", "payment_reference", "is_gift", "email", "shipped_at"]
LINE_COLUMNS = ["order_id", "line_no", "placed_at", "quantity", "unit_price", "note"]

# Winter time at its start and summer time at its end: the borders are at 23:00 and at 22:00 of the day before in UTC.
RANGE = {"start": "2024-12-15", "end": "2026-07-01 00:00", "zone": "Europe/Berlin"}
STORED = "placed_at >= '2024-12-14 23:00:00' AND placed_at < '2026-06-30 22:00:00'"
SUMMER = """(placed_at >= '2025-03-30 01:00:00' AND placed_at < '2025-10-26 01:00:00'
    OR placed_at >= '2026-03-29 01:00:00' AND placed_at < '2026-10-25 01:00:00')"""
IN_BERLIN = (
    f"""IF({SUMMER}, CONCAT(placed_at + INTERVAL 2 HOUR, '+02:00'), CONCAT(placed_at + INTERVAL 1 HOUR, '+01:00'))"""
)


def csv_by_sql(columns: list[str], where: str) -> str:
    """A statement that writes lines of CSV; the client ends each with a line feed."""

    def field(name: str) -> str:
        quoted = f"""CONCAT('"', REPLACE({name}, '"', '""'), '"')"""
        return f"IFNULL({quoted if name in TEXTS else IN_BERLIN if name == 'placed_at' else name}, '')"

    fields = ", ',', ".join(map(field, columns))
    return f"SELECT CONCAT({fields}, '\\r') FROM orders WHERE {where} ORDER BY id"


def json_by_sql(columns: list[str], where: str) -> str:
    """A statement that writes JSON objects. Texts are escaped by the server, numbers are as it prints them."""
    numbers = {"order_id", "line_no", "quantity", "unit_price"}
    values = {name: name if name in numbers else f"JSON_QUOTE({name})" for name in columns}
    values["placed_at"] = f"JSON_QUOTE({IN_BERLIN})"
    fields = ", ',', ".join(f"""'"{name}":', IFNULL({value}, 'null')""" for name, value in values.items())
    return f"SELECT CONCAT('{{', {fields}, '}}') FROM order_lines WHERE {where} ORDER BY order_id, line_no"


def link_in(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    [link] = re.findall(r"https?://\S+", part.get_content())
    return str(link)


@contextlib.contextmanager
def a_desk(
    mariadb: MariaDB, rabbitmq: RabbitMQ, store: Moto | SeaweedFS, mailserver: MailServer, bucket: str
) -> Iterator[Desk]:
    env = {
        "EXPORTAPP_STORAGE_URL": f"s3://{store.create_bucket(bucket)}/desk",
        "EXPORTAPP_S3_ENDPOINT": store.endpoint,
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_DEFAULT_REGION": REGION,
        "EXPORTAPP_MAIL_URL": mailserver.url,
        "EXPORTAPP_CHUNK_ROWS": "250",
    }
    with Desk(mariadb, rabbitmq, (ROOT / "datasets.toml").read_text(), env) as desk:
        write_shop(desk.env["SOURCE_SHOP_URL"], orders=ORDERS, progress=lambda line: None)
        desk.manage("migrate", "-v0")
        for name in ("alice", "bob"):
            desk.add_user(name, email=f"{name}@example.com")
        yield desk


@pytest.mark.parametrize(
    ("s3", "doorbells"), [("moto", "as rung"), ("seaweedfs", "lost, doubled and shuffled")], ids=["straight", "meddled"]
)
def test_what_the_mail_leads_to_is_what_the_table_holds(
    mariadb: MariaDB,
    rabbitmq: RabbitMQ,
    mailserver: MailServer,
    request: pytest.FixtureRequest,
    s3: str,
    doorbells: str,
) -> None:
    store: Moto | SeaweedFS = request.getfixturevalue(s3)
    bucket = f"journey-{free_port()}"
    with a_desk(mariadb, rabbitmq, store, mailserver, bucket) as desk, contextlib.ExitStack() as meddling:
        # No web request ever reaches the broker: for this process there is none.
        desk.start_web(EXPORTAPP_BROKER_URL=f"amqp://nobody@127.0.0.1:{free_port()}/")
        alice, bob = Visitor(desk.address), Visitor(desk.address)
        alice.sign_in("alice", "alice-password")
        bob.sign_in("bob", "bob-password")
        orders = alice.ask("orders", **RANGE, columns=ORDER_COLUMNS, format="csv", header="names", exact="on", name="My orders",
                           filter_column="status", filter_op="in", filter_low="delivered, refunded")  # fmt: skip
        lines = alice.ask(
            "order_lines", **RANGE, columns=LINE_COLUMNS, format="jsonl", compression="gzip", name="Their lines"
        )
        assert {alice.state(path) for path in (orders, lines)} == {"Waiting"}

        worker: dict[str, str] = {}
        if doorbells != "as rung":
            worker["EXPORTAPP_BROKER_URL"] = rabbitmq.vhost()
            meddler = Meddler(desk.env["EXPORTAPP_BROKER_URL"], worker["EXPORTAPP_BROKER_URL"], seed=ORDERS)
        desk.start_worker("worker-1", concurrency=2, **worker)
        desk.start_worker("worker-2", concurrency=1, **worker)
        if worker:
            meddling.enter_context(meddler)
        desk.start_dispatcher("dispatcher-1")
        desk.start_dispatcher("dispatcher-2")

        expected = {
            orders: ",".join(f'"{name}"' for name in ORDER_COLUMNS) + "\r\n"
            + mariadb.sql(csv_by_sql(ORDER_COLUMNS, f"{STORED} AND status IN ('delivered', 'refunded')"), desk.source),
            lines: mariadb.sql(json_by_sql(LINE_COLUMNS, STORED), desk.source),
        }  # fmt: skip
        for path, name in ((orders, "My orders"), (lines, "Their lines")):
            mail = mailserver.wait_for(lambda one, name=name: name in one["Subject"], 90)  # type: ignore[misc]
            assert mail["To"] == "alice@example.com"
            link = link_in(mail)
            assert link == desk.address + path
            assert alice.state(link) == "Ready"
            file = alice.download(link)
            assert file.url.startswith(store.endpoint)
            assert (gzip.decompress(file.body) if path == lines else file.body) == expected[path].encode()
            assert hashlib.sha256(file.body).hexdigest() in alice.get(path).page.text
            assert alice.download(link, Range="bytes=1000-").body == file.body[1000:]
            assert [bob.get(path + more).status for more in ("", "download")] == [404, 404]

        assert len(mailserver.messages) == 2
        assert desk.ask("SELECT kind, COUNT(*) FROM exportapp_event WHERE kind IN ('ready', 'retry', 'taken back', "
                        "'mailed', 'failed') GROUP BY kind ORDER BY kind") == [["mailed", "2"], ["ready", "2"]]  # fmt: skip
        [[chunks, crashes]] = desk.ask("SELECT COUNT(*), MAX(crashes) FROM exportapp_step WHERE kind = 'chunk'")
        assert int(chunks) > 20
        assert crashes == "0"
        wait_until(lambda: len(store.keys(bucket)) == 2, 30, "the pieces to be deleted")
        assert not store.client().list_multipart_uploads(Bucket=bucket).get("Uploads")
        if worker:
            print(f"doorbells: {meddler.lost} lost, {meddler.doubled} doubled, the rest shuffled")
            assert meddler.lost
            assert meddler.doubled


def test_signed_link_refuses_a_forged_one_and_ends(
    mariadb: MariaDB, rabbitmq: RabbitMQ, seaweedfs: SeaweedFS, mailserver: MailServer
) -> None:
    with a_desk(mariadb, rabbitmq, seaweedfs, mailserver, f"links-{free_port()}") as desk:
        desk.start_web(EXPORTAPP_LINK_SECONDS="2")
        desk.start_worker()
        desk.start_dispatcher()
        alice, anybody = Visitor(desk.address), Visitor(desk.address)
        alice.sign_in("alice", "alice-password")
        path = alice.ask("products")
        wait_until(lambda: alice.state(path) == "Ready", 60, "the file")

        link = alice.get(path + "download", follow=False).headers["Location"]
        assert anybody.get(link).status == 200
        key, _, query = link.partition("?")
        assert anybody.get(key).status == 403
        assert anybody.get(f"{key}x?{query}").status == 403
        assert anybody.get(link.replace("X-Amz-Expires=2", "X-Amz-Expires=99999")).status == 403
        wait_until(lambda: anybody.get(link).status == 403, 20, "the end of the link")
        assert alice.download(path).status == 200

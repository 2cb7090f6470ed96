"""The private servers do what tests rely on: round trips, data outliving a kill, refusals, no leftovers."""

import smtplib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage

import pika
import pytest

from tests.services import MailServer, MariaDB, Moto, Processes, RabbitMQ, SeaweedFS, Server, wait_until
from tests.services.base import find_program, session_members, session_of
from tests.services.s3 import S3Server


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[SeaweedFS]:
    with SeaweedFS() as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        yield server


def test_mariadb_keeps_text_and_rows_over_a_kill() -> None:
    with MariaDB(extra_options=["--max-allowed-packet=32M"]) as server:
        url = server.create_database("shop")
        assert url == f"mysql://app:secret@127.0.0.1:{server.port}/shop"
        server.sql("CREATE TABLE note (id INT, text TEXT); INSERT INTO note VALUES (1, 'größer 🦀')", "shop")
        server.kill()
        server.start()
        assert server.sql("SELECT * FROM note", "shop") == "1\tgrößer 🦀\n"
        assert server.sql("SELECT @@max_allowed_packet") == f"{32 * 1024 * 1024}\n"


def test_mariadb_lets_both_users_in_over_tcp() -> None:
    MySQLdb = pytest.importorskip("MySQLdb")
    with MariaDB() as server:
        for user in ("app", "root"):
            connection = MySQLdb.connect(host="127.0.0.1", port=server.port, user=user, password="secret")
            connection.close()


def publish(url: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("jobs", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "jobs", body, pika.BasicProperties(delivery_mode=2))


def get(url: str) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        body: bytes | None = connection.channel().basic_get("jobs", auto_ack=True)[2]
        return body


def test_rabbitmq_keeps_messages_over_a_kill_and_vhosts_apart() -> None:
    with RabbitMQ() as broker:
        first, second = broker.vhost(), broker.vhost()
        publish(first, b"export 1")
        publish(second, b"export 2")
        with pytest.raises(pika.exceptions.AMQPError):
            get(first.rpartition("/")[0] + "/" + second.rpartition("/")[2])
        # A queue that was declared this moment may be lost with a kill: the broker writes its tables a little later.
        broker.ctl("eval", "mnesia:sync_log().")
        broker.kill()
        broker.start()
        assert get(first) == b"export 1"
        assert get(second) == b"export 2"
        assert get(second) is None
        assert "86400000" in broker.ctl("eval", "application:get_env(rabbit, consumer_timeout).")


@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
def test_s3_gives_back_what_was_put(name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = server.create_bucket("exports")
    server.client().put_object(Bucket=bucket, Key="a/größer.csv", Body=b"id\n1\n")
    server.client().put_object(Bucket=bucket, Key="empty", Body=b"")
    assert server.objects(bucket) == {"a/größer.csv": b"id\n1\n", "empty": b""}


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_seaweedfs_refuses_forged_and_expired_urls(seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.create_bucket("links")
    client = seaweedfs.client()
    client.put_object(Bucket=bucket, Key="file", Body=b"x")

    def link(seconds: int) -> str:
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "file"}, ExpiresIn=seconds)
        return str(url)

    good, short = link(60), link(1)
    forged = good[:-1] + ("0" if good[-1] != "0" else "1")
    assert status_of(good) == 200
    assert status_of(forged) == 403
    wait_until(lambda: status_of(short) == 403, 10, "the link to expire")


def send_mail(server: MailServer, subject: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "desk@example.org", "ann@example.org", subject
    message.set_content("Your file is ready.")
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.send_message(message)


def test_mail_arrives() -> None:
    with MailServer() as server:
        assert server.url == f"smtp://127.0.0.1:{server.port}"
        send_mail(server, "Größer 🦀")
        message = server.wait_for(lambda mail: mail["To"] == "ann@example.org")
        assert message["Subject"] == "Größer 🦀"
        assert message.get_content() == "Your file is ready.\n"


def test_mail_is_refused_on_request() -> None:
    with MailServer() as server:
        server.rcpt_answer = "550 5.1.1 unknown"
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send_mail(server, "nobody")
        server.rcpt_answer, server.data_answer = None, "451 4.3.0 later"
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            send_mail(server, "later")
        server.data_answer = None
        send_mail(server, "now")
        assert [message["Subject"] for message in server.messages] == ["now"]
        assert server.refused == 2


# Its child ignores SIGTERM, has a child of its own, and tells that one's id.
FAMILY = """
import signal, subprocess, sys, time
CHILD = '''
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("grandchild", subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
'''
subprocess.Popen([sys.executable, "-c", CHILD])
time.sleep(600)
"""


def grandchild_in(log: str) -> int | None:
    words = log.split()
    return int(words[words.index("grandchild") + 1]) if "grandchild" in words and log.endswith("\n") else None


def test_processes_end_a_child_of_a_child() -> None:
    with Processes({}, cwd="/") as processes:
        main = processes.start("family", [sys.executable, "-c", FAMILY])
        grandchild = wait_until(lambda: grandchild_in(processes.log("family")), 20, "the grandchild")
        processes.term("family")
        main.wait(10)
        assert grandchild in processes.survivors()
    assert session_of(grandchild) is None
    assert not session_members(main.pid)


def test_processes_report_one_that_left_its_group() -> None:
    processes = Processes({}, cwd="/")
    with pytest.raises(AssertionError, match="sleep 600"), processes:
        processes.start("escape", ["setsid", "--fork", "sleep", "600"]).wait(10)
        wait_until(processes.survivors, 10, "the one that left")
    assert not processes.survivors()


def test_processes_kill_and_start_again_under_the_same_name() -> None:
    with Processes({"WORD": "again"}, cwd="/") as processes:
        processes.start("echo", ["sh", "-c", "echo $WORD; sleep 600"])
        with pytest.raises(RuntimeError, match="already"):
            processes.start("echo", ["true"])
        wait_until(lambda: processes.log("echo") == "again\n", 10, "the word")
        processes.kill("echo")
        assert not processes.survivors()
        processes.start("echo", ["sh", "-c", "echo $WORD"]).wait(10)
        assert processes.log("echo") == "again\nagain\n"


class Failing(Server):
    name = "failing"

    def _command(self) -> list[str]:
        return ["sh", "-c", "sleep 600 & echo no licence; exit 3"]

    def _is_ready(self) -> bool:
        return False


def test_a_failed_start_shows_the_log_and_leaves_nothing() -> None:
    server = Failing()
    with pytest.raises(RuntimeError, match="no licence"), server:
        raise AssertionError("unreachable")
    assert not server.folder.exists()
    assert not server.running


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(RuntimeError, match="Debian package mariadb-server"):
        find_program("no-such-program", "mariadb-server")


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match="in vain for the moon"):
        wait_until(lambda: False, 0, "the moon")

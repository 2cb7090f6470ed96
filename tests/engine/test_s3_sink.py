"""A bucket as a store, on real servers: nothing left open, neighbours left alone, failures told, links that end."""

from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ConnectTimeoutError

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks import s3
from exportapp.engine.sinks.s3 import S3Store
from tests.engine.servers import BUCKET, PART, content, put, session, uploads_of
from tests.services import Moto, wait_until
from tests.services.base import free_port
from tests.services.s3 import S3Server


class Watched:
    """A client that notes what is asked of it, and fails where it is told to."""

    def __init__(self, client: Any, failing: str = "", error: Exception | None = None) -> None:
        self._client, self._failing, self._error = client, failing, error
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return self._fail if name == self._failing else getattr(self._client, name)

    def _fail(self, **_: Any) -> Any:
        raise self._error or ConnectTimeoutError(endpoint_url="http://store")


@pytest.mark.parametrize(
    ("size", "requests"),
    [
        (0, ["put_object", "head_object"]),
        (PART - 1, ["put_object", "head_object"]),
        (2 * PART, ["create_multipart_upload", *["upload_part"] * 2, "complete_multipart_upload", "head_object"]),
        (2 * PART + 1, ["create_multipart_upload", *["upload_part"] * 3, "complete_multipart_upload", "head_object"]),
    ],
)
def test_small_files_are_put_at_once_and_big_ones_in_parts(moto_store: S3Store, size: int, requests: list[str]) -> None:
    watched = moto_store.client = Watched(moto_store.client)
    put(moto_store, "a", b"x" * size)
    assert watched.asked == requests


def test_parts_grow_so_that_ten_thousand_hold_a_terabyte(moto_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = moto_store.create("a")
    monkeypatch.setattr(s3, "FIRST_PART", 8 << 20)
    sizes = []
    for _ in range(10_000):
        sizes.append(sink._part_size())
        sink._parts.append({})
    assert sum(sizes) > 1 << 40
    assert max(sizes) <= 512 << 20


def test_an_abort_leaves_no_open_upload(bucket: S3Store) -> None:
    sink = bucket.create("a/file")
    sink.write(b"x" * (PART + 1))
    assert uploads_of(bucket) == ["a/file"]
    sink.abort()
    assert uploads_of(bucket) == []


def test_deleting_a_folder_ends_its_open_uploads_and_no_others(bucket: S3Store) -> None:
    for name in ("abc", "abc/1", "abc/pieces/2", "abcd/3", "abc 4", "ab"):
        bucket.create(name).write(b"x" * PART)
    bucket.delete("abc")
    assert uploads_of(bucket) == ["ab", "abc 4", "abcd/3"]
    for name in ("ab", "abc 4", "abcd"):
        bucket.delete(name)


@pytest.mark.parametrize(
    ("size", "failing"),
    [
        (1, "put_object"),
        (1, "head_object"),
        (PART, "create_multipart_upload"),
        (2 * PART, "upload_part"),
        (PART + 1, "complete_multipart_upload"),
        (PART + 1, "head_object"),
    ],
)
def test_a_failure_on_the_way_leaves_neither_file_nor_upload(moto_store: S3Store, size: int, failing: str) -> None:
    working = moto_store.client
    moto_store.client = Watched(working, failing)
    sink = moto_store.create("a/file")
    with pytest.raises(ExportError, match="does not answer") as caught:
        sink.write(b"x" * size)
        sink.finish()
    sink.abort()
    moto_store.client = working
    assert not caught.value.permanent
    assert (moto_store.size("a/file"), uploads_of(moto_store)) == (None, [])


def test_a_file_that_was_not_kept_whole_is_told_and_taken_away(moto_store: S3Store) -> None:
    sink = moto_store.create("a/file")
    sink.write(b"12345")
    sink._size += 1
    with pytest.raises(ExportError, match="did not keep the whole file"):
        sink.finish()
    sink.abort()
    assert moto_store.size("a/file") is None


USES: dict[str, Callable[[S3Store], object]] = {
    "small": lambda store: put(store, "a", b"x"),
    "big": lambda store: put(store, "a", b"x" * PART),
    "read": lambda store: content(store, "a"),
    "names": lambda store: list(store.names("a")),
    "delete": lambda store: store.delete("a"),
}


@pytest.mark.parametrize("use", USES)
def test_a_missing_bucket_is_for_an_operator(moto: Moto, credentials: None, use: str) -> None:
    with pytest.raises(ExportError, match="An operator has to") as caught:
        USES[use](S3Store(f"s3://no-such-bucket?endpoint={moto.endpoint}"))
    assert caught.value.permanent


@pytest.mark.parametrize("use", USES)
def test_wrong_credentials_are_for_an_operator(
    seaweedfs: S3Server, seaweedfs_store: S3Store, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session("wrong"))
    with pytest.raises(ExportError, match="refused the export desk") as caught:
        USES[use](S3Store(f"s3://{BUCKET}?endpoint={seaweedfs.endpoint}"))
    assert caught.value.permanent
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("use", [*USES, "size"])
def test_a_store_that_does_not_answer_is_tried_again_later(
    credentials: None, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.setattr(s3, "Config", lambda **more: Config(**(more | {"retries": {"max_attempts": 0}})))
    store = S3Store(f"s3://{BUCKET}?endpoint=http://127.0.0.1:{free_port()}")
    with pytest.raises(ExportError, match="The file store does not answer") as caught:
        (USES | {"size": lambda store: store.size("a")})[use](store)
    assert not caught.value.permanent


class BreakingOff(http.server.BaseHTTPRequestHandler):
    """Promises a long file and hangs up in its middle."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 20))
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_file_that_breaks_off_is_no_shorter_file(credentials: None) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), BreakingOff) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        store = S3Store(f"s3://{BUCKET}?endpoint=http://127.0.0.1:{server.server_port}")
        with pytest.raises(ExportError, match="does not answer"):
            content(store, "a")


# --- errors that neither server gives ---------------------------------------------------------------------------------

REFUSED = ("The file store refused the export desk. An operator has to mend its settings.", True)
EXPIRED = ("The export desk's access to the file store has expired.", False)
AWAY = ("The file store does not answer.", False)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers everything with one S3 error; like S3 itself without a body where only the head is asked for."""

    code, status = "", 400
    protocol_version = "HTTP/1.1"  # which answers the client's question whether it may send its data

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"<Error><Code>{self.code}</Code><Message>Because of {self.code}.</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        if self.status == 301:
            self.send_header("x-amz-bucket-region", "eu-central-1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = _refuse

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def refusing(credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], S3Store]]:
    """A store that answers everything with an error of this code and status, and is asked once."""
    monkeypatch.setattr(s3, "Config", lambda **more: Config(**(more | {"retries": {"max_attempts": 0}})))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def refuse(code: str, status: int) -> S3Store:
            monkeypatch.setattr(Refusing, "code", code)
            monkeypatch.setattr(Refusing, "status", status)
            return S3Store(f"s3://{BUCKET}?endpoint=http://127.0.0.1:{server.server_port}")

        yield refuse
        server.shutdown()


def told(work: Callable[[], object]) -> tuple[str, bool]:
    """The sentence for a person and whether there is no use in trying again."""
    with pytest.raises(ExportError) as caught:
        work()
    assert caught.value.detail.startswith("S3")
    return caught.value.sentence, caught.value.permanent


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("AccessDenied", 403, REFUSED),
        ("AllAccessDisabled", 403, REFUSED),
        ("AuthorizationHeaderMalformed", 400, REFUSED),
        ("InvalidAccessKeyId", 403, REFUSED),
        ("InvalidBucketName", 400, REFUSED),
        ("InvalidToken", 400, REFUSED),
        ("NoSuchBucket", 404, REFUSED),
        ("PermanentRedirect", 301, REFUSED),
        ("SignatureDoesNotMatch", 403, REFUSED),
        ("KMS.DisabledException", 400, REFUSED),
        ("KMS.InvalidKeyUsageException", 400, REFUSED),
        ("KMS.KMSInvalidStateException", 400, REFUSED),
        ("KMS.NotFoundException", 400, REFUSED),
        ("ExpiredToken", 400, EXPIRED),
        ("TokenRefreshRequired", 400, EXPIRED),
        ("InternalError", 500, AWAY),
        ("KMS.DependencyTimeoutException", 400, AWAY),
        ("KMS.KMSInternalException", 400, AWAY),
        ("KMS.KeyUnavailableException", 400, AWAY),
        ("KMS.ThrottlingException", 400, AWAY),
        ("RequestTimeTooSkewed", 403, AWAY),
        ("SlowDown", 503, AWAY),
    ],
)
def test_only_what_passes_by_itself_is_tried_again(
    refusing: Callable[[str, int], S3Store], code: str, status: int, sentence: tuple[str, bool]
) -> None:
    store = refusing(code, status)
    for use in USES.values():
        assert told(lambda: use(store)) == sentence  # noqa: B023


def test_an_operator_reads_what_the_store_said(refusing: Callable[[str, int], S3Store]) -> None:
    with pytest.raises(ExportError) as caught:
        put(refusing("AccessDenied", 403), "a", b"x")
    assert caught.value.detail == "S3 PutObject: AccessDenied: Because of AccessDenied."


@pytest.mark.parametrize(("status", "sentence"), [(403, REFUSED), (400, AWAY), (500, AWAY)])
def test_an_answer_without_a_body_is_told_by_its_status(
    refusing: Callable[[str, int], S3Store], status: int, sentence: tuple[str, bool]
) -> None:
    assert told(lambda: refusing("", status).size("a")) == sentence


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Gives boto3 no credentials but those of these variables. Returns the address of a store that nobody answers for."""

    def only(**variables: str) -> str:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
            monkeypatch.setenv(name, "/dev/null")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        return f"s3://{BUCKET}?endpoint=http://127.0.0.1:{free_port()}"

    return only


UNKNOWN = ("The export desk has no credentials for the file store. An operator has to mend its settings.", True)


@pytest.mark.parametrize("use", [*USES, "size", "link"])
def test_missing_credentials_are_for_an_operator(bare: Callable[..., str], use: str) -> None:
    uses = USES | {"size": lambda store: store.size("a"), "link": lambda store: link_to(store, "a")}
    store = S3Store(bare())
    assert told(lambda: uses[use](store)) == UNKNOWN


def test_half_of_the_credentials_are_for_an_operator(bare: Callable[..., str]) -> None:
    assert told(lambda: S3Store(bare(AWS_ACCESS_KEY_ID="secret"))) == UNKNOWN


def test_a_profile_that_does_not_exist_is_for_an_operator(bare: Callable[..., str]) -> None:
    assert told(lambda: S3Store(bare(AWS_PROFILE="nobody"))) == UNKNOWN


@pytest.mark.parametrize("use", USES)
def test_a_name_that_no_bucket_can_have_is_for_an_operator(credentials: None, use: str) -> None:
    store = S3Store(f"s3://our%20files?endpoint=http://127.0.0.1:{free_port()}")
    assert told(lambda: USES[use](store)) == REFUSED


def test_credentials_that_cannot_be_renewed_just_now_are_tried_again(bare: Callable[..., str]) -> None:
    address = bare(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{free_port()}/")
    assert told(lambda: S3Store(address)) == AWAY


# --- signed links -----------------------------------------------------------------------------------------------------


def link_to(store: S3Store, name: str, seconds: int = 60, endpoint: str = "") -> str:
    url = store.link(
        name, seconds=seconds, disposition='attachment; filename="a b.csv"', content_type="text/csv", endpoint=endpoint
    )
    assert url
    return url


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_link_fetches_the_file_under_the_name_and_type_given(bucket: S3Store) -> None:
    put(bucket, "a/file", b"id\r\n1\r\n")
    with urllib.request.urlopen(link_to(bucket, "a/file"), timeout=10) as response:
        assert response.read() == b"id\r\n1\r\n"
        assert response.headers["Content-Disposition"] == 'attachment; filename="a b.csv"'
        assert response.headers["Content-Type"] == "text/csv"


def test_a_link_expires(seaweedfs_store: S3Store) -> None:
    put(seaweedfs_store, "a/file", b"x")
    url = link_to(seaweedfs_store, "a/file", seconds=1)
    wait_until(lambda: status_of(url) == 403, 10, "the link to expire")


def test_a_forged_link_is_refused(seaweedfs_store: S3Store) -> None:
    put(seaweedfs_store, "a/file", b"x")
    put(seaweedfs_store, "b/file", b"another's")
    url = link_to(seaweedfs_store, "a/file")
    forged = [url.replace("/a/file", "/b/file"), url.replace("Expires=60", "Expires=600"), url.partition("?")[0]]
    assert [status_of(one) for one in (url, *forged)] == [200, 403, 403, 403]


def test_a_link_names_the_store_as_browsers_reach_it(moto_store: S3Store) -> None:
    url = link_to(moto_store, "a/file", endpoint="https://files.example.com")
    assert url.startswith(f"https://files.example.com/{BUCKET}/")
    assert "X-Amz-Signature=" in url

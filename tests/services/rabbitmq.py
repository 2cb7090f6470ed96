"""A private RabbitMQ broker with its own epmd. It takes about ten seconds to start: use one a test session
and a fresh vhost a test."""

import itertools
import json
import os
import secrets
import socket
import subprocess
from pathlib import Path
from typing import ClassVar

from .base import (
    HOST,
    Server,
    accepts_connections,
    die_with_parent,
    find_program,
    free_port,
    kill_session,
    wait_until,
)

# The real programs: Debian's wrappers in /usr/sbin change to the user "rabbitmq".
_FOLDER = Path("/usr/lib/rabbitmq/bin")
_LOOPBACK = "{127,0,0,1}"  # in Erlang

_CONFIG = """\
listeners.tcp.1 = {host}:{port}
loopback_users = none
# Longer than any export: after 30 minutes, the default, the broker closes the channel of a busy worker.
consumer_timeout = 86400000
"""


class RabbitMQ(Server):
    name: ClassVar[str] = "rabbitmq"
    start_timeout: ClassVar[float] = 120

    def __init__(self) -> None:
        super().__init__()
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._ctl_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def _prepare(self) -> None:
        (self.folder / "rabbitmq.conf").write_text(_CONFIG.format(host=HOST, port=self.port))
        (self.folder / "enabled_plugins").write_text("[].\n")
        # The node's name ends in "localhost", and a bare chroot has no /etc/hosts to look that up.
        (self.folder / "inetrc").write_text(f'{{host, {_LOOPBACK}, ["localhost"]}}.\n{{lookup, [file, native]}}.\n')

    def _command(self) -> list[str]:
        return [_program("rabbitmq-server")]

    def _environment(self) -> dict[str, str]:
        loopback = f"-start_epmd false -kernel inet_dist_use_interface {_LOOPBACK}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
        return inherited | {
            "HOME": str(self.folder),  # the Erlang cookie lies here
            "LANG": "C.UTF-8",
            # As under systemd the script becomes the server, so that signals reach it and not a shell.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": f"exportapp{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self._ctl_port),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self._ctl_port + 10),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "ERL_INETRC": str(self.folder / "inetrc"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    def _spawn(self) -> None:
        self._start_epmd()
        super()._spawn()

    def _start_epmd(self) -> None:
        # Erlang would start epmd as a daemon that outlives everything; in the foreground it is ours to end.
        if self._epmd is None:
            self._epmd = subprocess.Popen(
                [*die_with_parent("KILL"), find_program("epmd", "erlang-base"), "-port", str(self._epmd_port),
                 "-address", HOST],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            wait_until(lambda: accepts_connections(self._epmd_port), 10, f"epmd on port {self._epmd_port}")

    def kill(self) -> None:
        try:
            super().kill()
        finally:
            if self._epmd is not None:
                kill_session(self._epmd.pid)
                self._epmd.wait()
                self._epmd = None

    def _is_ready(self) -> bool:
        # The banner ends so when all is booted; the listener alone opens before.
        return "completed with" in self.log() and _speaks_amqp(self.port)

    def ctl(self, *args: str) -> str:
        """What `rabbitmqctl --quiet` prints; a RuntimeError with its complaint when it fails."""
        if not self.running:
            raise RuntimeError("rabbitmq is not running")
        result = subprocess.run(
            [_program("rabbitmqctl"), "--quiet", *args],
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)}\n{result.stdout}{result.stderr}")
        return result.stdout

    def vhost(self) -> str:
        """The amqp:// address of a new vhost, with a user of its own who has all rights there alone."""
        name = f"test{next(self._numbers)}"
        password = secrets.token_hex(8)
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "vhosts": [{"name": name}],
            "users": [{"name": name, "password": password, "tags": []}],
            "permissions": [{"user": name, "vhost": name, **everything}],
        }
        # One call instead of three: each rabbitmqctl costs more than half a second.
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(definitions))
        self.ctl("import_definitions", str(file))
        return f"amqp://{name}:{password}@{HOST}:{self.port}/{name}"


def _program(name: str) -> str:
    return find_program(str(_FOLDER / name), "rabbitmq-server")


def _speaks_amqp(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"  # a method frame: the broker offers connection.start
    except OSError:
        return False

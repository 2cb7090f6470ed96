"""Where a command writes to: files that are whole or not there, and pipes and devices that take what comes."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.local import UNFINISHED, rename_durably

_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_NUMBERED = re.compile(r"(?:/dev/fd|/proc/self/fd)/(\d{1,9})")


class Output:
    """The one file of a store of its own: under its name is all of it, or what was there before.

    Nothing is written anywhere before `open`, nothing is under the name before `publish`, and nothing unfinished stays
    after `abort`. What is no regular file, such as a pipe or a device, is written to as it goes, and so is what the
    process has open already: "-", the standard output, or the /dev/fd/63 that a shell makes of >(command).
    """

    def __init__(self, option: str, name: str) -> None:
        self.option, self.name = option, name
        self._path = Path(os.path.realpath(name))  # behind a link: what it names is replaced, and not the link
        self._part: Path | None = None
        self._descriptor = -1

    def open(self) -> None:
        """Raises OSError for a place that cannot be written to."""
        number = _open_already(self.name)
        if number is not None:
            self._descriptor = _writable(number)
        elif (before := _status(self.name)) and not stat.S_ISREG(before.st_mode):
            self._descriptor = os.open(self.name, os.O_WRONLY)
        else:
            self._begin(stat.S_IMODE(before.st_mode) if before else None)

    def _begin(self, mode: int | None) -> None:
        if self.name.endswith("/"):  # which a path loses
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # As it has to be opened again to make the new name outlive a power cut, when it would be too late to say no.
        os.close(os.open(self._path.parent, os.O_RDONLY))
        # Of a name that nobody else has: two exports may be under way to the same place.
        self._part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._descriptor = os.open(self._part, flags, 0o666 if mode is None else mode)
        if mode is not None:
            os.fchmod(self._descriptor, mode)  # what the umask took

    def create(self, name: str) -> Output:
        return self

    def write(self, data: bytes) -> None:
        with self._explained():
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]

    def finish(self) -> None:
        """Has all of it on the disk, and not yet under its name."""
        with self._explained():
            if self._part:
                os.fsync(self._descriptor)
            self._close()

    def publish(self) -> None:
        """Gives what is finished its name."""
        if self._part:
            with self._explained():
                rename_durably(self._part, self._path)

    def abort(self) -> None:
        """Of what is published nothing is left to abort."""
        with suppress(OSError):
            self._close()
        if self._part:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ExportError(f"The {self.option} cannot be written: {error.strerror}.") from error


def same_place(one: str, other: str) -> bool:
    """Whether what is written under one name would be gone, or mixed, with what is written under the other."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    with suppress(OSError):
        first, second = _status(one), _status(other)
        # A terminal and /dev/null may well take both.
        return bool(first and second and os.path.samestat(first, second) and not stat.S_ISCHR(first.st_mode))
    return False


def _status(name: str) -> os.stat_result | None:
    """What is under the name, behind links: those to pipes cannot be followed by their texts. None for nothing yet."""
    number = _open_already(name)
    try:
        return os.stat(name if number is None else number)
    except FileNotFoundError:
        return None


def _open_already(name: str) -> int | None:
    """The number of the descriptor that the name stands for.

    Of that there is more than the file behind it: where in it the next byte goes, and sockets have no other way in.
    """
    if numbered := _NUMBERED.fullmatch(name):
        return int(numbered[1])
    return _STANDARD.get(name)


def _writable(number: int) -> int:
    """A descriptor of our own for one that is open. Raises OSError for those that are not, or for reading only."""
    # Where the shell closed a standard stream (>&-), something else may have got its number.
    if number in (1, 2) and (sys.__stdout__, sys.__stderr__)[number - 1] is None:
        raise OSError(errno.EBADF, "it is closed")
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "it is open for reading only")
    return os.dup(number)

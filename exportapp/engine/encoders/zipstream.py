"""Writes a ZIP archive piece by piece, sizes being unknown until an entry ends; knows nothing of what is in it.

By APPNOTE.TXT 6.3.10. Every entry stays below 4 GiB: a larger one would need sizes of 8 bytes behind its data, which
Excel refuses (https://rzymek.github.io/post/excel-zip64). The archive may be of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack

from isal import isal_zlib

LARGEST, LARGEST_COUNT = 0xFFFFFFFE, 0xFFFE
ELSEWHERE, COUNT_ELSEWHERE = 0xFFFFFFFF, 0xFFFF  # says that the field stands in the ZIP64 record (4.4.1.4)
SIZES_BEHIND = 1 << 3
DEFLATED = 8
FIRST_OF_1980 = 0x21 << 16  # the earliest date there is: the same input gives the same bytes
PLAIN, ZIP64 = 20, 45  # the version of the specification that a reader needs


@dataclass
class _Entry:
    name: bytes
    offset: int
    flags: int
    crc: int = 0
    packed: int = 0
    size: int = 0

    @property
    def version(self) -> int:
        return ZIP64 if self.offset > LARGEST else PLAIN

    def header(self) -> bytes:
        return pack("<I3H4I2H", 0x04034B50, self.version, self.flags, DEFLATED, FIRST_OF_1980,
                    self.crc, self.packed, self.size, len(self.name), 0) + self.name  # fmt: skip

    def descriptor(self) -> bytes:
        return pack("<4I", 0x08074B50, self.crc, self.packed, self.size)

    def directory(self) -> bytes:
        offset, extra = self.offset, b""
        if self.version == ZIP64:
            offset, extra = ELSEWHERE, pack("<2HQ", 1, 8, self.offset)
        fields = pack("<I4H4I5H2I", 0x02014B50, self.version, self.version, self.flags, DEFLATED, FIRST_OF_1980,
                      self.crc, self.packed, self.size, len(self.name), len(extra), 0, 0, 0, 0, offset)  # fmt: skip
        return fields + self.name + extra


class ZipStream:
    """Each method returns the archive's next bytes; together they are the archive."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._offset = 0
        self._packer = _packer()

    def whole(self, name: str, content: bytes) -> bytes:
        """A small entry, its sizes before its data: some readers and `file` look no further than the first ones."""
        packer = _packer()
        packed = packer.compress(content) + packer.flush()
        entry = _Entry(name.encode(), self._offset, 0, isal_zlib.crc32(content), len(packed), len(content))
        self._entries.append(entry)
        return self._counted(entry.header() + packed)

    def open(self, name: str) -> bytes:
        entry = _Entry(name.encode(), self._offset, SIZES_BEHIND)
        self._entries.append(entry)
        self._packer = _packer()
        return self._counted(entry.header())

    @property
    def size(self) -> int:
        """Of the open entry, before compression."""
        return self._entries[-1].size

    def write(self, data: bytes) -> bytes:
        entry = self._entries[-1]
        entry.crc = isal_zlib.crc32(data, entry.crc)
        entry.size += len(data)
        return self._packed(self._packer.compress(data))

    def close(self) -> bytes:
        end = self._packed(self._packer.flush())
        return end + self._counted(self._entries[-1].descriptor())

    def _packed(self, data: bytes) -> bytes:
        self._entries[-1].packed += len(data)
        return self._counted(data)

    def _counted(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data

    def finish(self) -> bytes:
        directory = b"".join(entry.directory() for entry in self._entries)
        count, size, start, end = len(self._entries), len(directory), self._offset, b""
        if start > LARGEST or count > LARGEST_COUNT:
            end = pack("<IQ2H2I4Q", 0x06064B50, 44, ZIP64, ZIP64, 0, 0, count, count, size, start)
            end += pack("<IIQI", 0x07064B50, 0, start + size, 1)
            count, start = COUNT_ELSEWHERE, ELSEWHERE
        return directory + end + pack("<I4H2IH", 0x06054B50, 0, 0, count, count, size, start, 0)


def _packer() -> isal_zlib.Compress:
    return isal_zlib.compressobj(level=1, wbits=-15)  # a raw stream, the window being 32 KiB

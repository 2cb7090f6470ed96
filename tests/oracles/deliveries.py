"""Holds what a desk delivered against what was asked of it: nothing lost, doubled or damaged, and nothing left behind.

It knows what people saw (the answers to what they sent, pages, files, mails), what lies in the store, and the source's
own data; nothing of how a desk is made.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

from tests.oracles.comparison import complaints
from tests.oracles.files import Damaged
from tests.oracles.server import Truth

OK, UNKNOWN, REFUSED = "ok", "unknown", "refused"
ENDED = ("Ready", "Failed", "Cancelled")
# The one reason to fail that a campaign brings about by itself, and how many may at most, whatever their share.
GIVEN_UP = "This export stopped its worker three times and was given up."
FEW = 3
FEW_OF_ALL = 0.05
INTERRUPTED = (
    "another one takes over",
    "it is taken up again",
    "Trying again in",
)  # what a history says of a step that was done twice


@dataclass(frozen=True)
class Recipe:
    """The rows of a table whose first column, its key, is in a range with both ends, in a format."""

    dataset: str
    low: int
    high: int
    format: str
    compression: str = "none"
    consistency: str = "chunked"


@dataclass
class Asked:
    """One form that a person sent, once or more often with the same token. The name is nobody else's."""

    person: str
    name: str
    recipe: Recipe
    answers: list[str] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # the states that its pages showed, in that order


@dataclass(frozen=True)
class Found:
    """An export as its owner finds it when all is over."""

    person: str
    name: str
    id: str
    state: str
    sentence: str = ""
    history: tuple[str, ...] = ()  # newest first
    receipt: Mapping[str, Any] | None = None
    file: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Mail:
    """A mail that the mail server accepted: to whom, about which export, and whether it says Ready."""

    person: str
    id: str
    ready: bool


@dataclass
class Verdict:
    """A sentence for each wrong thing, and counts of what may happen."""

    exports: int = 0
    ready: int = 0
    cancelled: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    interrupted: int = 0  # exports whose history says that a step was begun anew
    mails_doubled: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.bad or self.orphans)


def judge(
    asked: Sequence[Asked],
    found: Sequence[Found],
    mails: Sequence[Mail],
    stored: Sequence[str],
    truths: Mapping[str, Truth],
) -> Verdict:
    """`stored` are the names of all files in the store, and of uploads that were begun and never ended."""
    verdict = Verdict(exports=len(found), refused=sum(OK not in one.answers for one in asked))
    verdict.ready = sum(one.state == "Ready" for one in found)
    verdict.interrupted = sum(map(_interrupted, found))
    by_name = defaultdict(list)
    for one in found:
        by_name[one.person, one.name].append(one)
    contents = Contents(truths)
    for form in asked:
        exports = by_name.pop((form.person, form.name), [])
        _count(verdict, form, exports)
        for export in exports:
            _judge_end(verdict, form, export)
            if export.state == "Ready":
                verdict.bad += [f"{_named(export)}: {wrong}" for wrong in contents.wrong(form.recipe, export)]
    verdict.doubled += [f"{_named(one)}: nobody asked for it" for ones in by_name.values() for one in ones]
    _judge_shares(verdict)
    _judge_mails(verdict, found, mails)
    _judge_store(verdict, found, stored)
    return verdict


def _named(export: Found) -> str:
    return f"{export.name} ({export.id})"


def _count(verdict: Verdict, asked: Asked, exports: Sequence[Found]) -> None:
    if OK in asked.answers and not exports:
        verdict.lost.append(f"{asked.name}: it was accepted, and there is no export")
    if asked.answers and set(asked.answers) == {REFUSED} and exports:
        verdict.doubled.append(f"{asked.name}: it was refused, and there is an export")
    if len(exports) > 1:
        verdict.doubled.append(f"{asked.name}: {len(exports)} exports of one form")


def _judge_end(verdict: Verdict, asked: Asked, export: Found) -> None:
    if export.state == "Cancelled":
        verdict.cancelled += 1
        if not asked.cancels:
            verdict.lost.append(f"{_named(export)}: cancelled, and nobody did")
    elif export.state == "Failed":
        verdict.failed.append(f"{_named(export)}: {export.sentence}")
        if not export.sentence:
            verdict.bad.append(f"{_named(export)}: failed without a sentence")
        elif not export.sentence.startswith(GIVEN_UP):
            verdict.bad.append(f"{_named(export)}: failed, and not for three crashes: {export.sentence}")
    elif export.state != "Ready":
        verdict.lost.append(f"{_named(export)}: never ended, it is {export.state}; {export.history[:2]}")
    ended = [state for state in asked.seen if state in ENDED]
    later = asked.seen[asked.seen.index(ended[0]) :] if ended else []
    if changed := [state for state in [*later, export.state] if state != ended[0]] if ended else []:
        verdict.bad.append(f"{_named(export)}: it was {ended[0]}, and then {changed[0]}")


def _judge_shares(verdict: Verdict) -> None:
    """A desk that gives up keeps all its promises and is of no use."""
    failed, wanted = len(verdict.failed), verdict.exports - verdict.cancelled
    if failed > max(FEW, FEW_OF_ALL * verdict.exports):
        verdict.bad.append(f"{failed} exports of {verdict.exports} failed")
    if wanted and 2 * verdict.ready <= wanted:
        verdict.bad.append(f"only {verdict.ready} of {wanted} exports that nobody cancelled are ready")


def _judge_mails(verdict: Verdict, found: Sequence[Found], mails: Sequence[Mail]) -> None:
    """One of each outcome; one more only where a history says that a step was done twice."""
    got = Counter(mails)
    for export in found:
        right = Mail(export.person, export.id, export.state == "Ready")
        count = got.pop(right, 0) if export.state in ("Ready", "Failed") else 0
        if export.state in ("Ready", "Failed") and not count:
            verdict.lost.append(f"{_named(export)}: no mail says that it is {export.state}")
        if count > 1:
            verdict.mails_doubled += count - 1
            if not _interrupted(replace(export, history=_since_it_ended(export))):
                verdict.bad.append(f"{_named(export)}: {count} mails, and nothing interrupted the first")
    verdict.bad += [f"a mail that should not be: {mail}" for mail in got]


def _since_it_ended(export: Found) -> tuple[str, ...]:
    """The newest lines of a history, up to the outcome that a mail tells of."""
    ends = (place for place, line in enumerate(export.history) if line.startswith("Ready: ") or line == export.sentence)
    return export.history[: next(ends, len(export.history))]


def _interrupted(export: Found) -> bool:
    return any(words in line for line in export.history for words in INTERRUPTED)


def _judge_store(verdict: Verdict, found: Sequence[Found], stored: Sequence[str]) -> None:
    ready = {export.id: export for export in found if export.state == "Ready"}
    files = defaultdict(list)
    for name in stored:
        files[name.partition("/")[0]].append(name)
    for folder, names in files.items():
        # Which of two is the file that the page gives, the page does not say; one too many is one orphan anyhow.
        spare = names if folder not in ready else names[1:]
        verdict.orphans += [f"in the store: {name}" for name in spare]


class Contents:
    """Compares files with the source's data. The same content of the same rows in the same format is compared once."""

    def __init__(self, truths: Mapping[str, Truth]) -> None:
        self._truths = truths
        self._parts: dict[tuple[str, int, int], Truth] = {}
        self._known: dict[tuple[str, int, int, str, str], list[str]] = {}

    def wrong(self, recipe: Recipe, export: Found) -> list[str]:
        """What is wrong with a file and its receipt, a sentence each."""
        if export.file is None:
            return ["it is ready, and the file cannot be fetched"]
        if export.receipt is None:
            return ["it is ready, and there is no receipt"]
        data = export.file()
        rows = len(self._truth(recipe).rows)
        return [*_against_receipt(data, rows, export.receipt), *self._against_source(recipe, data)]

    def _truth(self, recipe: Recipe) -> Truth:
        key = (recipe.dataset, recipe.low, recipe.high)
        if key not in self._parts:
            self._parts[key] = within(self._truths[recipe.dataset], recipe.low, recipe.high)
        return self._parts[key]

    def _against_source(self, recipe: Recipe, data: bytes) -> list[str]:
        try:
            plain = _unpacked(data) if recipe.compression == "gzip" else data
        except Damaged as error:
            return [str(error)]
        key = (recipe.dataset, recipe.low, recipe.high, recipe.format, _sha256(plain))
        if key not in self._known:
            self._known[key] = complaints(recipe.format, self._truth(recipe), plain)
        return self._known[key]


def within(truth: Truth, low: int, high: int) -> Truth:
    """The rows whose first column is in a range."""
    return replace(truth, rows=tuple(row for row in truth.rows if low <= int(row[0] or b"0") <= high))


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"cut, or a wrong byte: no gzip, {error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _against_receipt(data: bytes, rows: int, receipt: Mapping[str, Any]) -> list[str]:
    wrong = _against_parts(data, receipt)
    if receipt.get("bytes") != len(data):
        wrong.append(f"the receipt says {receipt.get('bytes')} bytes, the file has {len(data)}")
    if receipt.get("rows") != rows:
        wrong.append(f"the receipt says {receipt.get('rows')} rows, the source has {rows}")
    if receipt.get("sha256") != _sha256(data):
        wrong.append("the receipt's SHA-256 is another than the file's")
    return wrong


def _against_parts(data: bytes, receipt: Mapping[str, Any]) -> list[str]:
    parts = receipt.get("parts", [])
    ends = list(accumulate((part.get("bytes", 0) for part in parts), initial=0))
    if not parts or [part.get("from") for part in parts] != ends[:-1] or ends[-1] != len(data):
        return ["the receipt's parts do not make up the file"]
    wrong = [
        f"the receipt's SHA-256 of the part from {start} on is another than the file's"
        for part, (start, end) in zip(parts, pairwise(ends), strict=True)
        if part.get("sha256") != _sha256(data[start:end])
    ]
    if (counted := sum(part.get("rows", 0) for part in parts)) != receipt.get("rows"):
        wrong.append(f"the receipt says {receipt.get('rows')} rows in all, and {counted} rows in its parts")
    return wrong

"""The oracle of deliveries itself: it sees each planted loss, double, damage, missing mail and leftover."""

from __future__ import annotations

import ast
import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.oracles.deliveries import FEW, GIVEN_UP, OK, REFUSED, UNKNOWN, Asked, Found, Mail, Recipe, Verdict, judge
from tests.oracles.server import Truth

ROWS = tuple((b"%d" % number, b"note %d" % number) for number in range(1, 11))
TRUTHS = {"notes": Truth(("id", "note"), ("number", "text"), ROWS)}
HEADER = b'"id","note"\r\n'
CSV = HEADER + b"".join(b'%s,"%s"\r\n' % row for row in ROWS[1:7])  # type: ignore[str-bytes-safe]
RECIPE = Recipe("notes", 2, 7, "csv")


def receipt_of(data: bytes) -> dict[str, object]:
    """Of a file of two parts, with four of its six rows in the first."""
    half = len(data) // 2
    return {**stretch_of(data, 6), "parts": [{"from": 0, **stretch_of(data[:half], 4)},
                                             {"from": half, **stretch_of(data[half:], 2)}]}  # fmt: skip


def stretch_of(data: bytes, rows: int) -> dict[str, object]:
    return {"rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def asked(name: str = "a1", **more: object) -> Asked:
    return replace(Asked("alice", name, RECIPE, [OK], [], ["Waiting", "Running"]), **more)  # type: ignore[arg-type]


def ready(name: str = "a1", number: str = "id-1", data: bytes = CSV, **more: object) -> Found:
    whole = Found("alice", name, number, "Ready", receipt=receipt_of(data), file=lambda: data)
    return replace(whole, **more)  # type: ignore[arg-type]


MAILED = [Mail("alice", "id-1", True)]
STORED = ["id-1/1/file.csv"]


def judged(
    sent: Sequence[Asked] = (asked(),),
    found: Sequence[Found] = (ready(),),
    mails: Sequence[Mail] = MAILED,
    stored: Sequence[str] = STORED,
) -> Verdict:
    return judge(sent, found, mails, stored, TRUTHS)


def test_a_desk_that_did_all_passes() -> None:
    verdict = judged()
    assert verdict.clean
    assert (verdict.exports, verdict.ready, verdict.cancelled, verdict.mails_doubled) == (1, 1, 0, 0)
    assert verdict.failed == []


def test_a_form_sent_again_after_an_unknown_answer_is_one_export() -> None:
    assert judged([asked(answers=[UNKNOWN, OK])]).clean
    two = [ready(), ready(number="id-2")]
    verdict = judged(
        [asked(answers=[UNKNOWN, OK])], two, [*MAILED, Mail("alice", "id-2", True)], [*STORED, "id-2/1/file"]
    )
    assert verdict.doubled == ["a1: 2 exports of one form"]


def test_an_accepted_export_that_is_not_there_is_lost() -> None:
    assert judged(found=[], mails=[], stored=[]).lost == ["a1: it was accepted, and there is no export"]


def test_a_form_that_nobody_knows_the_answer_of_may_be_no_export() -> None:
    assert judged([asked(answers=[UNKNOWN])], [], [], []).clean


def test_an_export_that_nobody_asked_for_is_a_double() -> None:
    found = [ready(), ready("b7", "id-2")]
    verdict = judged(found=found, mails=[*MAILED, Mail("alice", "id-2", True)], stored=[*STORED, "id-2/1/file.csv"])
    assert verdict.doubled == ["b7 (id-2): nobody asked for it"]


def test_an_export_of_a_refused_form_is_a_double() -> None:
    assert judged([asked(answers=[REFUSED])]).doubled


def test_an_export_that_never_ends_is_lost() -> None:
    running = Found("alice", "a1", "id-1", "Running", history=("Started",))
    assert "never ended" in judged(found=[running], mails=[], stored=[]).lost[0]


def test_cancelled_by_its_owner_it_leaves_neither_file_nor_mail() -> None:
    sent, found = [asked(cancels=[OK])], [Found("alice", "a1", "id-1", "Cancelled")]
    verdict = judged(sent, found, [], [])
    assert verdict.clean
    assert verdict.cancelled == 1
    assert judged(sent, found, [], STORED).orphans == ["in the store: id-1/1/file.csv"]
    assert judged(sent, found, MAILED, []).bad
    assert "nobody did" in judged([asked()], found, [], []).lost[0]


def desk_of(done: int, failed: int, sentence: str = GIVEN_UP, cancelled: int = 0) -> Verdict:
    """Judges a desk of which so many exports are ready, failed and cancelled."""
    states = ["Ready"] * done + ["Failed"] * failed + ["Cancelled"] * cancelled
    sent = [asked(f"a{place}", cancels=[OK] if state == "Cancelled" else []) for place, state in enumerate(states)]
    found = [
        ready(f"a{place}", f"id-{place}")
        if state == "Ready"
        else Found("alice", f"a{place}", f"id-{place}", state, sentence if state == "Failed" else "")
        for place, state in enumerate(states)
    ]
    mails = [Mail("alice", one.id, one.state == "Ready") for one in found if one.state != "Cancelled"]
    return judged(sent, found, mails, [f"{one.id}/1/file.csv" for one in found if one.state == "Ready"])


def test_what_failed_needs_a_mail_and_the_one_sentence_that_a_campaign_brings_about() -> None:
    verdict = desk_of(9, 1, f"{GIVEN_UP} An operator can see why.")
    assert verdict.clean
    assert verdict.failed == [f"a9 (id-9): {GIVEN_UP} An operator can see why."]
    assert desk_of(9, 1, "").bad == ["a9 (id-9): failed without a sentence"]
    failed, more = [Found("alice", "a1", "id-1", "Failed", GIVEN_UP)], {"stored": []}
    assert judged(found=failed, mails=[], **more).lost
    assert judged(found=failed, mails=MAILED, **more).lost  # it says Ready


@pytest.mark.parametrize(
    "sentence",
    ["Something went wrong on our side.", "This export did not get on and was given up. An operator can see why."],
)
def test_what_failed_for_another_reason_is_bad(sentence: str) -> None:
    assert desk_of(99, 1, sentence).bad == [f"a99 (id-99): failed, and not for three crashes: {sentence}"]
    verdict = desk_of(0, 200, sentence)
    assert not verdict.clean
    assert len(verdict.bad) > 200


def test_a_desk_that_gives_up_more_than_a_few_is_bad() -> None:
    assert desk_of(20, FEW).clean
    assert desk_of(20, FEW + 1).bad == [f"{FEW + 1} exports of {FEW + 21} failed"]
    assert desk_of(190, 10).clean
    assert desk_of(189, 11).bad == ["11 exports of 200 failed"]
    assert not desk_of(0, 200).clean


def test_a_desk_that_delivers_no_more_than_half_of_what_nobody_cancelled_is_bad() -> None:
    assert desk_of(FEW + 1, FEW, cancelled=10).clean
    assert desk_of(FEW, FEW, cancelled=10).bad == [f"only {FEW} of {2 * FEW} exports that nobody cancelled are ready"]
    assert desk_of(0, 0, cancelled=10).clean


@pytest.mark.parametrize("seen", [["Ready", "Running"], ["Cancelled"], ["Running", "Failed"]])
def test_an_end_that_changes_is_seen(seen: list[str]) -> None:
    assert "and then" in judged([asked(seen=seen)]).bad[0]


def test_a_missing_mail_is_seen() -> None:
    assert judged(mails=[]).lost == ["a1 (id-1): no mail says that it is Ready"]


def test_a_second_mail_is_counted_and_excused_only_by_an_interruption() -> None:
    verdict = judged(mails=MAILED * 2)
    assert verdict.mails_doubled == 1
    assert "nothing interrupted the first" in verdict.bad[0]
    silence, end = "A worker fell silent in the step; another one takes over.", "Ready: 6 rows"
    assert judged(found=[ready(history=("The mail was sent", silence, end, "Started"))], mails=MAILED * 2).clean
    verdict = judged(found=[ready(history=("The mail was sent", end, silence, "Started"))], mails=MAILED * 2)
    assert "nothing interrupted the first" in verdict.bad[0]
    assert verdict.interrupted == 1


def test_a_mail_to_somebody_else_is_seen() -> None:
    assert judged(mails=[*MAILED, Mail("bob", "id-1", True)]).bad
    assert judged(mails=[*MAILED, Mail("alice", "id-9", True)]).bad


@pytest.mark.parametrize("name", ["id-1/pieces/0-1-1", "id-1/pieces/0-1-1.part", "id-1/2/file.csv", "id-9/1/file.csv"])
def test_a_file_that_belongs_to_nothing_is_an_orphan(name: str) -> None:
    assert judged(stored=[*STORED, name]).orphans == [f"in the store: {name}"]


LINES = CSV.splitlines(keepends=True)
DAMAGES: dict[str, tuple[bytes, str]] = {
    "lost": (b"".join(LINES[:3] + LINES[4:]), "lost rows: 1 of 6"),
    "doubled": (b"".join(LINES[:3] + LINES[2:]), "doubled rows: 1"),
    "cut": (b"".join(LINES[:-1]), "cut: only the first 5 of 6"),
    "cut in a line": (CSV[:-3], "damaged"),
    "wrong byte": (CSV.replace(b"note 5", b"note 6"), "wrong value"),
    "a row of outside": (CSV + b'8,"note 8"\r\n', "rows that the table has not"),
    "shuffled": (b"".join([LINES[0], *LINES[:0:-1]]), "another order"),
    "empty": (b"", "damaged"),
}


@pytest.mark.parametrize(("data", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_seen(data: bytes, words: str) -> None:
    assert words in "\n".join(judged(found=[ready(data=data)]).bad)


@pytest.mark.parametrize(("data", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_seen_through_gzip(data: bytes, words: str) -> None:
    sent = [asked(recipe=replace(RECIPE, compression="gzip"))]
    assert judged(sent, [ready(data=gzip.compress(CSV))]).clean
    assert words in "\n".join(judged(sent, [ready(data=gzip.compress(data))]).bad)
    assert "no gzip" in judged(sent, [ready(data=gzip.compress(CSV)[:-9])]).bad[0]


def of_part(place: int, **more: object) -> Callable[[dict[str, object]], object]:
    """Changes a part of a receipt."""
    return lambda receipt: receipt["parts"][place].update(more)  # type: ignore[index]


MISTAKES: dict[str, tuple[Callable[[dict[str, object]], object], str]] = {
    "other bytes": (lambda receipt: receipt.update(bytes=1), "1 bytes, the file has"),
    "other rows": (lambda receipt: receipt.update(rows=5), "says 5 rows, the source has 6"),
    "rows of text": (lambda receipt: receipt.update(rows="6"), "says 6 rows"),
    "no rows": (lambda receipt: receipt.pop("rows"), "says None rows"),
    "other hash": (lambda receipt: receipt.update(sha256="0" * 64), "SHA-256 is another"),
    "empty hash": (lambda receipt: receipt.update(sha256=""), "SHA-256 is another"),
    "no hash": (lambda receipt: receipt.pop("sha256"), "SHA-256 is another"),
    "no parts": (lambda receipt: receipt.pop("parts"), "parts"),
    "an empty list of parts": (lambda receipt: receipt.update(parts=[]), "parts"),
    "a part lost": (lambda receipt: receipt["parts"].pop(), "parts"),  # type: ignore[attr-defined]
    "a part doubled": (lambda receipt: receipt["parts"].append(receipt["parts"][1]), "parts"),  # type: ignore[attr-defined, index]
    "a part of nothing": (lambda receipt: receipt["parts"].append({}), "parts"),  # type: ignore[attr-defined]
    "parts in another order": (lambda receipt: receipt["parts"].reverse(), "parts"),  # type: ignore[attr-defined]
    "a part from elsewhere": (of_part(1, **{"from": 1}), "parts"),
    "a part without a hash": (of_part(1, sha256=None), "SHA-256 of the part from 42 on"),
    "a part of another hash": (of_part(0, sha256="0" * 64), "SHA-256 of the part from 0 on"),
    "a part of other rows": (of_part(1, rows=1), "5 rows in its parts"),
}


@pytest.mark.parametrize(("change", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_receipt_is_seen(change: Callable[[dict[str, object]], object], words: str) -> None:
    receipt = receipt_of(CSV)
    change(receipt)
    assert words in "\n".join(judged(found=[ready(receipt=receipt)]).bad)


def test_a_ready_export_without_a_receipt_is_bad() -> None:
    assert judged(found=[ready(receipt=None)]).bad == ["a1 (id-1): it is ready, and there is no receipt"]


def test_a_file_that_cannot_be_fetched_is_seen() -> None:
    assert judged(found=[ready(file=None)]).bad == ["a1 (id-1): it is ready, and the file cannot be fetched"]


def test_the_oracle_imports_nothing_of_the_app() -> None:
    tree = ast.parse((Path(__file__).parent / "deliveries.py").read_text())
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not [name for name in modules if name.partition(".")[0] in ("exportapp", "worker", "django")]

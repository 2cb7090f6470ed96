"""verify_receipt says whether a file is what its receipt says, and where it is not."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from exportapp.models import Export
from tests.scenes import ask, file_of
from worker.tasks import work

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def file(shop: Path, tmp_path: Path) -> Path:
    """An export, with its receipt beside it."""
    path = tmp_path / "products.csv"
    call_command("run_export", "products", output=str(path), receipt=f"{path}.json", quiet=True)
    return path


def verified(file: Path | str, receipt: Path | str | None = None) -> str:
    printed = io.StringIO()
    call_command("verify_receipt", str(file), str(receipt or f"{file}.json"), stdout=printed)
    return printed.getvalue()


def refused(file: Path | str, receipt: Path | str | None = None) -> tuple[int, list[str]]:
    """The exit code and the sentences."""
    with pytest.raises(CommandError) as error:
        verified(file, receipt)
    return error.value.returncode, str(error.value).splitlines()


def changed(file: Path, **more: Any) -> None:
    """Changes the receipt."""
    path = Path(f"{file}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def test_file_that_is_what_its_receipt_says_is_confirmed_by_what_was_checked(file: Path) -> None:
    assert verified(file) == (
        f"The file is what its receipt says: {file.stat().st_size} bytes, and the same SHA-256 of all of them and of each "
        "part. Rows were not counted; the receipt says 2.\n"
    )


def test_rows_that_the_parts_do_not_have_are_not_confirmed(file: Path) -> None:
    changed(file, rows=999)
    assert refused(file) == (1, [
        "The file is not what its receipt says.", "Its receipt contradicts itself: 999 rows in all, 2 in its parts.",
    ])  # fmt: skip
    changed(file, parts=[])
    size = file.stat().st_size
    assert refused(file) == (1, [
        "The file is not what its receipt says.",
        "Its receipt contradicts itself: 999 rows in all, 0 in its parts.",
        f"Its receipt contradicts itself: {size} bytes in all, 0 in its parts.",
    ])  # fmt: skip


def test_part_is_checked_though_the_whole_is_right(file: Path) -> None:
    part = {"from": 0, "bytes": file.stat().st_size, "rows": 2, "sha256": "0" * 64}
    changed(file, parts=[part])
    assert refused(file) == (1, [
        "The file is not what its receipt says.",
        f"What differs is among the bytes from 0 to {file.stat().st_size}.",
    ])  # fmt: skip


def test_receipt_of_an_exports_page_is_understood(
    alice: User, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.heart.HEART.start", lambda: None)
    ask(alice)
    work()
    export = Export.objects.get()
    receipt = tmp_path / "receipt.json"
    receipt.write_text(json.dumps(export.receipt))
    assert verified(file_of(export), receipt).endswith("Rows were not counted; the receipt says 25.\n")


def test_changed_byte_is_found(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-4] ^= 1
    file.write_bytes(content)
    assert refused(file) == (1, [
        "The file is not what its receipt says.",
        "The file's SHA-256 is not the one of its receipt.",
        f"What differs is among the bytes from 0 to {len(content)}.",
    ])  # fmt: skip


def test_file_that_was_cut_is_found(file: Path) -> None:
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    code, sentences = refused(file)
    assert code == 1
    assert f"The file has {size - 1} bytes, its receipt says {size}." in sentences


@pytest.mark.parametrize("gone", ["file", "receipt"])
def test_file_or_receipt_that_is_not_there_is_told(file: Path, gone: str) -> None:
    path = file if gone == "file" else Path(f"{file}.json")
    path.unlink()
    assert refused(file) == (2, [f"{path} cannot be read: No such file or directory."])


def test_folder_is_no_file(file: Path) -> None:
    assert refused(file.parent, f"{file}.json") == (2, [f"{file.parent} cannot be read: Is a directory."])


DIGEST = '"sha256": "' + "0" * 64 + '"'


@pytest.mark.parametrize(("content", "reason"), [
    ("", "it is no JSON"),
    ("{", "it is no JSON"),
    ("[" * 100_000, "it is no JSON"),
    ("1" * 5000, "it is no JSON"),
    ("[]", "it is no JSON object"),
    ("1", "it is no JSON object"),
    ("null", "it is no JSON object"),
    ("{}", "its “bytes” is no whole number, or not there"),
    ('{"rows": "x", "bytes": 1}', "its “rows” is no whole number, or not there"),
    ('{"rows": true, "bytes": 1}', "its “rows” is no whole number, or not there"),
    ('{"rows": -1, "bytes": 1}', "its “rows” is no whole number, or not there"),
    ('{"rows": 1, "bytes": 1.0}', "its “bytes” is no whole number, or not there"),
    ('{"rows": 1, "bytes": Infinity}', "its “bytes” is no whole number, or not there"),
    ('{"rows": 1, "bytes": 1}', "its “sha256” is no SHA-256 in hexadecimal digits, or not there"),
    ('{"rows": 1, "bytes": 1, "sha256": ""}', "its “sha256” is no SHA-256 in hexadecimal digits, or not there"),
    ('{"rows": 1, "bytes": 1, "sha256": 5}', "its “sha256” is no SHA-256 in hexadecimal digits, or not there"),
    (f'{{"rows": 1, "bytes": 1, {DIGEST}}}', "it has no list of parts"),
    (f'{{"rows": 1, "bytes": 1, {DIGEST}, "parts": 5}}', "it has no list of parts"),
    (f'{{"rows": 1, "bytes": 1, {DIGEST}, "parts": ["x"]}}', "part 1: it is no JSON object"),
    (f'{{"rows": 1, "bytes": 1, {DIGEST}, "parts": [{{"from": null, "bytes": 1, "rows": 1, {DIGEST}}}]}}',
     "part 1: its “from” is no whole number, or not there"),
    (f'{{"rows": 1, "bytes": 1, {DIGEST}, "parts": [{{"from": 0, "bytes": 1, {DIGEST}}}]}}',
     "part 1: its “rows” is no whole number, or not there"),
])  # fmt: skip
def test_what_is_no_receipt_is_told(file: Path, tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "no receipt"
    path.write_text(content)
    assert refused(file, path) == (2, [f"{path} is no receipt: {reason}."])


def test_receipt_of_bytes_that_are_no_text_is_told(file: Path) -> None:
    Path(f"{file}.json").write_bytes(b"\xff")
    assert refused(file) == (2, [f"{file}.json is no receipt: it is no JSON."])


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "manage.py", "verify_receipt", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=60, check=False, **options)


def test_standard_input_is_read_and_exit_codes_tell_scripts_what_was_found(file: Path) -> None:
    receipt = f"{file}.json"
    same = run("-", receipt, input=file.read_bytes())
    assert (same.returncode, same.stderr) == (0, b"")
    assert same.stdout.startswith(b"The file is what its receipt says: ")
    other = run("-", receipt, input=file.read_bytes() + b"more")
    assert (other.returncode, other.stdout) == (1, b"")
    assert b"\nThe file's SHA-256 is not the one of its receipt.\n" in other.stderr
    assert run("-", "/nowhere", input=b"").returncode == 2
    assert run("-").returncode == 2


def shell(line: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What becomes of a line of a shell, in which "$@" is the command."""
    argv = ["bash", "-c", line, "bash", sys.executable, "manage.py", "verify_receipt", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=60, check=False)


def test_standard_input_that_is_closed_is_told(file: Path) -> None:
    done = shell('"$@" <&-', "-", f"{file}.json")
    assert (done.returncode, done.stderr) == (2, b"CommandError: The standard input cannot be read: it is closed.\n")


@pytest.mark.parametrize("closing", ["2>&- >&-", "&> /dev/full"])
def test_exit_code_is_the_same_though_nobody_hears_it(file: Path, closing: str) -> None:
    assert shell(f'"$@" {closing}', str(file), f"{file}.json").returncode == 0
    assert shell(f'"$@" {closing}', str(file), "/dev/null").returncode == 2
    file.write_bytes(b"")
    assert shell(f'"$@" {closing}', str(file), f"{file}.json").returncode == 1

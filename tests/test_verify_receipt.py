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


def test_file_that_is_what_its_receipt_says_is_confirmed(file: Path) -> None:
    assert verified(file) == f"The file is what its receipt says: 2 rows, {file.stat().st_size} bytes.\n"


def test_receipt_of_an_exports_page_is_understood(
    alice: User, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.heart.HEART.start", lambda: None)
    ask(alice)
    work()
    export = Export.objects.get()
    receipt = tmp_path / "receipt.json"
    receipt.write_text(json.dumps(export.receipt))
    assert verified(file_of(export), receipt).startswith("The file is what its receipt says: 25 rows, ")


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


@pytest.mark.parametrize("content", [
    b"", b"{", b"\xff", b"[]", b"1", b"null", b"{}", b"[" * 100_000,
    b'{"rows": 1, "bytes": 1, "parts": []}',
    b'{"rows": 1, "bytes": Infinity, "sha256": "", "parts": []}',
    b'{"rows": "x", "bytes": 1, "sha256": "", "parts": []}',
    b'{"rows": 1, "bytes": 1, "sha256": "", "parts": ["x"]}',
    b'{"rows": 1, "bytes": 1, "sha256": "", "parts": [{"from": null, "bytes": 1, "sha256": ""}]}',
    b'{"rows": 1, "bytes": 1, "sha256": "", "parts": 5}',
])  # fmt: skip
def test_what_is_no_receipt_is_told(file: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no receipt"
    path.write_bytes(content)
    assert refused(file, path) == (2, [f"{path} is no receipt."])


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "manage.py", "verify_receipt", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=60, check=False, **options)


def test_standard_input_is_read_and_exit_codes_tell_scripts_what_was_found(file: Path) -> None:
    receipt = f"{file}.json"
    same = run("-", receipt, input=file.read_bytes())
    assert (same.returncode, same.stderr) == (0, b"")
    assert same.stdout.startswith(b"The file is what its receipt says: 2 rows, ")
    other = run("-", receipt, input=file.read_bytes() + b"more")
    assert (other.returncode, other.stdout) == (1, b"")
    assert b"\nThe file's SHA-256 is not the one of its receipt.\n" in other.stderr
    assert run("-", "/nowhere", input=b"").returncode == 2
    assert run("-").returncode == 2

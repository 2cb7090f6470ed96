"""Every process tells a wrong setting at its start, with what to write instead, and does not go on with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PROCESSES = {
    "web": [BIN / "gunicorn", "exportapp.wsgi", "--bind", "127.0.0.1:0", "--no-control-socket"],
    "worker": [BIN / "celery", "-A", "exportapp", "worker", "--pool", "threads"],
    "dispatcher": [sys.executable, "manage.py", "dispatch"],
    "embedded": [sys.executable, "manage.py", "work"],
}


@pytest.mark.parametrize("name", ["worker", "dispatcher"])
def test_process_that_needs_a_broker_does_not_start_without_one(name: str, tmp_path: Path) -> None:
    command = [part for part in PROCESSES[name] if part not in ("--pool", "threads")]
    env = os.environ | {"EXPORTAPP_VAR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "EXPORTAPP_BROKER_URL names no broker: run `manage.py work`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", PROCESSES)
def test_wrong_setting_is_told_at_the_start_and_ends_it(name: str, tmp_path: Path) -> None:
    wrong = {
        "EXPORTAPP_VAR": str(tmp_path),
        "EXPORTAPP_STORAGE_URL": "ftp://secret:password@files",
        "EXPORTAPP_CHUNK_ROWS": "x",
    }
    done = subprocess.run(
        PROCESSES[name], cwd=ROOT, env=os.environ | wrong, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    told = done.stdout + done.stderr
    assert done.returncode not in (0, -9)
    assert "EXPORTAPP_STORAGE_URL: the address begins with none of file:, s3:." in told
    assert "HINT: Write it like s3://bucket/prefix or file:///folder" in told
    assert "EXPORTAPP_CHUNK_ROWS" in told
    assert "password" not in told

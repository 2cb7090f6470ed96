"""Runs one thing in a process of its own and says how long it took, how much it wrote and how much memory it had."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.child import size_of

Figures = dict[str, Any]  # seconds, rows, bytes, peak (MB, None where it is the server's); or `missing`
ROOT = Path(__file__).parent.parent
SAMPLE = 0.02


def python(interpreter: str, *arguments: str) -> Figures:
    """What a Python child says of itself, in the last line that it prints."""
    child = subprocess.run([interpreter, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed\n{child.stdout[-2000:]}{child.stderr[-4000:]}")
    figures: Figures = json.loads(child.stdout.splitlines()[-1])
    return figures


def command(arguments: Sequence[str], out: Path, environment: Mapping[str, str], rows: re.Pattern[bytes]) -> Figures:
    """A program, its output in the file `out/file` unless it writes itself. `rows` is what begins a row's line."""
    program = shutil.which(arguments[0])
    if program is None:
        return {"missing": f"the program {arguments[0]}"}
    peaks: list[int] = []
    with (out / "file").open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen([program, *arguments[1:]], stdout=file, stderr=subprocess.PIPE, env=environment)
        watcher = threading.Thread(target=_watch, args=(process, peaks))
        watcher.start()
        _, errors = process.communicate()
        seconds = time.perf_counter() - began
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} failed\n{errors.decode(errors='replace')[-4000:]}")
    peak = round(max(peaks, default=0) / 1024, 1)
    return {"seconds": seconds, "rows": count_lines(out, rows), "bytes": size_of(out), "peak": peak}


def _watch(process: subprocess.Popen[bytes], peaks: list[int]) -> None:
    # Not wait4's figure: that holds what the fork of this process had, too (getrusage(2), ru_maxrss).
    status = Path(f"/proc/{process.pid}/status")
    with suppress(FileNotFoundError, ProcessLookupError):  # another thread has just waited for its end
        while process.poll() is None:
            peaks.extend(int(kb) for kb in re.findall(r"VmHWM:\s+(\d+) kB", status.read_text()))
            time.sleep(SAMPLE)


def count_lines(folder: Path, begin: re.Pattern[bytes]) -> int:
    rows = 0
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                rows += sum(1 for line in file if begin.match(line))
    return rows

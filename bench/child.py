"""What the measured Python processes share: a job comes as JSON in the arguments, the figures go as JSON to stdout.

Needs the standard library alone, for it runs in the peers' venv as well as in the application's.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def peak_mb() -> float:
    """The most memory that this process ever had resident (VmHWM, proc(5))."""
    [kb] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return round(int(kb) / 1024, 1)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(work: Callable[[Job], int], job: Job) -> None:
    """Times the work, which gives its rows. Imports are done before: a worker has them behind itself, too."""
    began = time.perf_counter()
    rows = work(job)
    seconds = time.perf_counter() - began
    figures = {"seconds": seconds, "rows": rows, "bytes": size_of(Path(job["out"])), "peak": peak_mb()}
    print(json.dumps(figures), flush=True)


def need(*modules: str) -> None:
    """Imports what a peer needs, or says that it is missing and ends."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            print(json.dumps({"missing": f"the Python package {module}"}), flush=True)
            sys.exit()


def load_extension(connection: Any, name: str) -> None:
    """Loads a DuckDB extension from the Python package that brings it, without asking a network."""
    package = importlib.import_module(f"duckdb_extension_{name}")
    [path] = Path(package.__path__[0]).rglob(f"{name}.duckdb_extension")
    connection.execute(f"LOAD '{path}'")

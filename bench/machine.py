"""What the figures were made on: the processor, the memory, the versions. Names no host and no path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("mysqlclient", "isal", "zstandard", "pyarrow")
PEERS = ("chdb", "chdb-core", "duckdb", "pandas", "SQLAlchemy", "Django", "mysqlclient", "XlsxWriter")


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text()
    model = next(iter(re.findall(r"model name\s*:\s*(.*)", info)), platform.machine())
    [kb] = re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    memory = f"{round(int(kb) / (1 << 20))} GB of memory"
    # What else ran tells how far the figures can be trusted.
    return f"{model}, {os.cpu_count()} cores, {memory}, {platform.system()}; load before the start: {os.getloadavg()[0]:.1f}"


def versions(server: str, peers: str) -> dict[str, str]:
    """The versions of all that takes part; `peers` is the interpreter that has the peers."""
    script = (
        "import importlib.metadata as m, sys\nfor n in sys.argv[1:]:\n"
        "  try: print(n, m.version(n))\n  except m.PackageNotFoundError: pass"
    )
    child = subprocess.run([peers, "-c", script, *PEERS], capture_output=True, text=True, check=True)
    return {
        "MariaDB server": server,
        "mariadb client": _said_by("mariadb", "--version"),
        "mydumper": _said_by("mydumper", "--version"),
        "Python": platform.python_version(),
        "the engine's packages": ", ".join(f"{name} {metadata.version(name)}" for name in _installed()),
        "the peers' packages": ", ".join(child.stdout.splitlines()) or "none installed",
    }


def _installed() -> list[str]:
    known = {distribution.name for distribution in metadata.distributions()}
    return [name for name in PACKAGES if name in known]


def _said_by(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        return "missing"

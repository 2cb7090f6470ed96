"""`python -m bench`: brings up the server and its tables, measures everything in rounds, writes RESULTS.md."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import report
from bench.cases import Case, Place, all_cases, engine, peer
from bench.data import load
from bench.machine import machine, versions
from bench.measure import ROOT, Figures
from bench.server import DATABASE, BenchServer
from bench.verify import same_records
from exportapp.engine.encoders import FORMATS

KEPT = ROOT / "var" / "bench"
SHARED_MEMORY = Path("/dev/shm")
NEEDED = 6 << 30  # bytes free for the widest output of scale 1
MEMORY_ROWS = (10_000, 100_000, 1_000_000, 10_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--scale", type=float, default=1, help="TPC-H's scale factor: 1 is 6 million rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only the groups with this in their name")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "RESULTS.md")
    asked = parser.parse_args()
    here = machine()
    kept = KEPT / f"scale-{asked.scale:g}"
    kept.mkdir(parents=True, exist_ok=True)
    interpreter = ROOT / ".venv-bench" / "bin" / "python"
    peers = str(interpreter) if interpreter.exists() else sys.executable
    with BenchServer(kept / "data") as server, output_folder(kept) as (out, words):
        rows = load(server, kept, asked.scale, peers)
        warm_up(server, rows)
        place = Place(server.url(DATABASE), kept / "lineitem.sqlite3", out, kept / "disk", peers)
        cases = [case for case in all_cases(place) if asked.only in case.group]
        results = {
            "machine": here, "versions": versions(server.sql("SELECT VERSION()").strip(), peers),
            "scale": asked.scale, "rounds": asked.rounds, "rows": rows, "written_to": words,
            **measure(place, cases, rows, asked.rounds, int(max(MEMORY_ROWS) * min(10 * asked.scale, 1))),
        }  # fmt: skip
    (kept / "results.json").write_text(json.dumps(results, indent=1))
    asked.output.write_text(report.render(results))
    print(f"bench: written to {asked.output.name}", flush=True)


@contextmanager
def output_folder(kept: Path) -> Iterator[tuple[Path, str]]:
    """Where files go: to memory where it has room, for the disk is not what is compared."""
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > NEEDED
    with tempfile.TemporaryDirectory(prefix="exportapp-bench-", dir=SHARED_MEMORY if roomy else kept) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "out", "a file system in memory (tmpfs)" if roomy else "the disk"


def warm_up(server: BenchServer, tables: dict[str, int]) -> None:
    for table in tables:
        server.sql(f"CHECKSUM TABLE {table}", DATABASE)


def measure(place: Place, cases: Sequence[Case], rows: dict[str, int], rounds: int, most: int) -> dict[str, Any]:
    """Everything that is measured, as report.render takes it. Fails when any run brings out a wrong number of rows."""
    for table in ("lineitem_small", "hard_small"):
        print(f"bench: {compare(place, table):,} records of {table} are the same with csv.writer", flush=True)
    results: dict[str, Any] = {"cases": [], "plans": [], "memory": [], "profiles": {}}
    for group in dict.fromkeys(case.group for case in cases):
        results["cases"] += in_turns(place, [case for case in cases if case.group == group], rows, rounds)
    results["plans"] = [engine(clean(place), "lineitem", "csv", plan=True) for _ in range(rounds)]
    sizes = [count for count in MEMORY_ROWS if count <= most] + [0] * ("wide" in rows)
    results["memory"] = [run_in_memory(place, name, count) for name in FORMATS for count in sizes]
    for target in report.missed(results):
        name = " ".join(target.job.values())
        if name not in results["profiles"]:
            results["profiles"][name] = profile(place, **target.job)
    clean(place)
    return results


def profile(place: Place, table: str, format: str, compression: str = "none", source: str = "") -> str:
    more = {"url": f"sqlite:///{place.sqlite}"} if source == "sqlite" else {}
    return str(engine(clean(place), table, format, compression=compression, profile=True, **more)["profile"])


def in_turns(place: Place, cases: Sequence[Case], rows: dict[str, int], rounds: int) -> list[dict[str, Any]]:
    """All rounds of a group. Every second one runs backwards, so that nobody always follows the same neighbour."""
    runs: dict[str, list[Figures]] = {case.name: [] for case in cases}
    missing: dict[str, str] = {}
    for turn in range(rounds):
        for case in cases if turn % 2 == 0 else reversed(cases):
            if case.name in missing:
                continue
            clean(place)
            figures = case.run()
            if "missing" in figures:
                missing[case.name] = figures["missing"]
                print(f"bench: {case.group}: {case.name}: {figures['missing']} is missing", flush=True)
                continue
            if figures["rows"] != rows[case.rows_of]:
                raise RuntimeError(
                    f"{case.name} wrote {figures['rows']} rows of {rows[case.rows_of]} in {case.rows_of}"
                )
            runs[case.name].append(figures)
            print(f"bench: {case.group}: {case.name}: {figures['seconds']:.2f} s, {figures['peak']} MB", flush=True)
    return [
        {"group": case.group, "name": case.name, "runs": runs[case.name], "missing": missing.get(case.name, "")}
        for case in cases
    ]


def clean(place: Place) -> Place:
    for folder in (place.out, place.disk):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    return place


def compare(place: Place, table: str) -> int:
    """The records of a table in the engine's CSV and in csv.writer's, which have to be the same."""
    clean(place)
    engine(place, table, "csv", out=str(place.disk), exact=True)
    peer(place, "mysqlclient", table)
    return same_records(table, place.disk / "piece", place.out / "file")


def run_in_memory(place: Place, name: str, rows: int) -> dict[str, Any]:
    """A run for its peak memory alone: `rows` made by the server, or for 0 the table with rows of 16 MB."""
    clean(place)
    table, what = (f"sequence_{rows}", f"{rows:,} rows") if rows else ("wide", "rows of 16 MB")
    try:
        figures = engine(place, table, name)
    except RuntimeError as error:
        sentence = re.search(r"ExportError: (.*)", str(error))  # a format may have limits, and says so
        if rows or not sentence:
            raise
        return {"format": name, "what": what, "peak": None, "refused": sentence[1]}
    if rows and figures["rows"] != rows:
        raise RuntimeError(f"{name} wrote {figures['rows']} of {rows} rows")
    return {"format": name, "what": what, "peak": figures["peak"], "seconds": figures["seconds"]}


if __name__ == "__main__":
    main()

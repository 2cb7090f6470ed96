"""Makes the table of what was measured, and says for each target whether it is reached. Hides no figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Results = dict[str, Any]

CSV, FORMATS, HARD = "lineitem as CSV", "lineitem in other formats", "the hard table"
SMALL, SQLITE = "the slow ones, on the first rows of lineitem", "lineitem's first rows from an SQLite file"
MEMORY_MB = 100


@dataclass(frozen=True)
class Target:
    """`ours` is to be at least `ratio` times as fast as `theirs`; `job` is what is profiled when it is not."""

    name: str
    group: str
    ours: str
    theirs: str
    ratio: float
    job: dict[str, str] = field(default_factory=dict)


LINEITEM_CSV = {"table": "lineitem", "format": "csv"}
TARGETS = (
    Target("CSV against `mariadb --quick --batch`", CSV, "engine, csv", "mariadb --quick --batch", 1.0, LINEITEM_CSV),
    Target("CSV against chDB", CSV, "engine, csv", "chDB, CSV", 1.0, LINEITEM_CSV),
    Target("hard table against `mariadb --quick --batch`", HARD, "engine, csv", "mariadb --quick --batch", 0.6,
           {"table": "hard", "format": "csv"}),
    Target("gzip against no compression", CSV, "engine, csv, gzip", "engine, csv", 0.7,
           LINEITEM_CSV | {"compression": "gzip"}),
    Target("with SHA-256 against without", CSV, "engine, csv", "engine, csv, without SHA-256", 0.95, LINEITEM_CSV),
    Target("JSON Lines against chDB", FORMATS, "engine, jsonl", "chDB, JSONEachRow", 1.0,
           {"table": "lineitem", "format": "jsonl"}),
    Target("Parquet against chDB", FORMATS, "engine, parquet", "chDB, Parquet", 1.0,
           {"table": "lineitem", "format": "parquet"}),
    Target("XLSX against XlsxWriter constant_memory", SMALL, "engine, xlsx", "XlsxWriter constant_memory", 5.0,
           {"table": "lineitem_small", "format": "xlsx"}),
    Target("SQLite against sqlite3 + csv.writer", SQLITE, "engine, csv", "sqlite3 + csv.writer", 1.3,
           {"table": "lineitem_small", "format": "csv", "source": "sqlite"}),
)  # fmt: skip


def speed(results: Results, group: str, name: str) -> float | None:
    """Rows a second at the median, None for what was not measured."""
    for case in results["cases"]:
        if (case["group"], case["name"]) == (group, name) and case["runs"]:
            return float(case["runs"][0]["rows"] / _median(case, "seconds"))
    return None


def reached(results: Results, target: Target) -> tuple[float | None, bool]:
    """The ratio, None when one of the two is missing, and whether it is enough."""
    ours, theirs = speed(results, target.group, target.ours), speed(results, target.group, target.theirs)
    ratio = ours / theirs if ours and theirs else None
    return ratio, ratio is not None and ratio >= target.ratio


def missed(results: Results) -> list[Target]:
    verdicts = ((target, *reached(results, target)) for target in TARGETS)
    return [target for target, ratio, enough in verdicts if ratio is not None and not enough]


def render(results: Results) -> str:
    return "\n".join([*_head(results), *_targets(results), *_groups(results), *_memory(results), *_profiles(results)])


def _head(results: Results) -> Iterator[str]:
    yield "# Measured\n"
    yield f"Made by `make bench SCALE={results['scale']:g} ROUNDS={results['rounds']}`.\n"
    yield f"- Machine: {results['machine']}"
    yield from (f"- {name}: {version}" for name, version in results["versions"].items())
    yield "- Rows: " + ", ".join(f"{table} {rows:,}" for table, rows in results["rows"].items())
    yield f"- Files are written to {results['written_to']}."
    yield HOW


HOW = """
All read the same MariaDB on the same machine over TCP to 127.0.0.1, without TLS, from a warm buffer pool. Each run is a
process of its own. The cases of a group take turns, every second round backwards; a figure is the median of the
rounds. Python's seconds are the work from connecting to the finished file, without the interpreter's start and imports;
a C program's are those of its whole process. The engine does what it does in production: it reads in key
order, makes texts harmless that a spreadsheet would take for formulas, hashes, and syncs the file. Peak
memory is the process's VmHWM; of `INTO OUTFILE` it is the server's and not shown. "x" is the speed in rows a second,
compared with the group's first line. After each run the rows are counted; the engine's CSV of the small tables is compared
value by value with the one that mysqlclient and csv.writer write.
"""


def _targets(results: Results) -> Iterator[str]:
    yield "## Targets\n"
    yield "| target | to reach | measured | |\n|---|---|---|---|"
    for target in TARGETS:
        ratio, enough = reached(results, target)
        word = "not measured" if ratio is None else "reached" if enough else "**missed**"
        yield f"| {target.name} | {target.ratio:g} x | {'-' if ratio is None else f'{ratio:.2f} x'} | {word} |"
    peaks = [run["peak"] for run in results["memory"] if run["peak"] is not None]
    if peaks:
        word = "reached" if max(peaks) < MEMORY_MB else "**missed**"
        yield f"| peak memory of a chunk | under {MEMORY_MB} MB | {max(peaks):.0f} MB at most | {word} |"
    yield ""


def _groups(results: Results) -> Iterator[str]:
    for group in dict.fromkeys(case["group"] for case in results["cases"]):
        cases = [case for case in results["cases"] if case["group"] == group]
        yield f"## {group[0].upper()}{group[1:]}\n"
        yield "| way | rows | seconds (least - most) | thousand rows/s | x | MB written | peak MB |"
        yield "|---|---|---|---|---|---|---|"
        first = speed(results, group, cases[0]["name"])
        yield from (_line(results, case, first) for case in cases)
        yield ""
    if results["plans"]:
        seconds = median(run["seconds"] for run in results["plans"])
        yield f"Planning lineitem's chunks takes {seconds:.2f} s (median of {len(results['plans'])}).\n"


def _line(results: Results, case: dict[str, Any], first: float | None) -> str:
    if not case["runs"]:
        return f"| {case['name']} | missing on this machine: {case['missing']} | | | | | |"
    own = speed(results, case["group"], case["name"]) or 0.0
    seconds = [run["seconds"] for run in case["runs"]]
    peak = "" if case["runs"][0]["peak"] is None else f"{max(run['peak'] for run in case['runs']):.0f}"
    return (
        f"| {case['name']} | {case['runs'][0]['rows']:,} | {median(seconds):.2f} ({min(seconds):.2f} - {max(seconds):.2f}) "
        f"| {own / 1000:,.0f} | {f'{own / first:.2f}' if first else ''} | {_median(case, 'bytes') / 1e6:,.0f} | {peak} |"
    )


def _memory(results: Results) -> Iterator[str]:
    yield "## Peak memory of a chunk, in MB\n"
    columns = list(dict.fromkeys(run["what"] for run in results["memory"]))
    yield f"| format | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}"
    for name in dict.fromkeys(run["format"] for run in results["memory"]):
        cells = {run["what"]: run for run in results["memory"] if run["format"] == name}
        texts = [
            cells[what]["refused"] if cells[what]["peak"] is None else f"{cells[what]['peak']:.0f}" for what in columns
        ]
        yield f"| {name} | {' | '.join(texts)} |"
    yield ""


def _profiles(results: Results) -> Iterator[str]:
    if results["profiles"]:
        yield "## Profiles of what was missed\n"
    for name, text in results["profiles"].items():
        yield f"{name}:\n\n```\n{text.strip()}\n```\n"


def _median(case: dict[str, Any], what: str) -> float:
    return float(median(run[what] for run in case["runs"]))

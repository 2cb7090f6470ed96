"""One run of the engine in a process of its own, as a worker runs a chunk: `python -m bench.engine JOB`.

The job's `until` ends the work early, for the split of its time: "read" drops the rows, "encode" the bytes. `hash`
false leaves SHA-256 out, `exact` leaves texts alone that look like formulas, `zone` moves times there, `plan` measures
planning alone.
"""

from __future__ import annotations

import cProfile
import io
import json
import pstats
import sys
import time

from bench.child import Job, run
from bench.tables import table_of
from exportapp.engine import chunks
from exportapp.engine.encoders import FORMATS
from exportapp.engine.readers import Reader, open_reader
from exportapp.engine.runs import Layout
from exportapp.engine.sinks import open_store
from exportapp.engine.specs import ChunkSpec, FileOptions, KeyRange

A_DAY = 86_400.0
ROWS_PER_CHUNK = 500_000


class NoHash:
    """Stands in for hashlib, and costs nothing."""

    def sha256(self) -> NoHash:
        return self

    def update(self, data: bytes) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


def spec_of(job: Job) -> ChunkSpec:
    return ChunkSpec(
        query=table_of(job["table"]).query(),
        range=KeyRange(),
        format=job["format"],
        compression=job.get("compression", "none"),
        name="piece",
        first=True,
        comment="bench",
        seconds=A_DAY,
        options=FileOptions(exact=job.get("exact", False)),
        zone=job.get("zone", ""),
    )


def work(job: Job) -> int:
    """The whole of it: connects, reads, encodes, compresses, hashes, stores. Gives the rows."""
    spec = spec_of(job)
    with open_reader(job["url"]) as reader:
        if job.get("until", "all") != "all":
            return _part(job["until"], spec, reader)
        return chunks.write_piece(spec, reader, open_store(f"file://{job['out']}")).rows


def _part(until: str, spec: ChunkSpec, reader: Reader) -> int:
    columns = reader.typed(spec.query)
    encoder = FORMATS[spec.format].encoder(columns, spec.options)
    width = Layout(len(columns), encoder.runs).place(len(columns) - 1) + 1
    rows = 0
    for batch in reader.stream(spec.query, spec.range, spec.comment, encoder.runs):
        rows += len(batch)
        if until == "encode":
            encoder.encode([row[:width] for row in batch])
    return rows


def plan(job: Job) -> int:
    with open_reader(job["url"]) as reader:
        return len(reader.plan(table_of(job["table"]).query(), ROWS_PER_CHUNK, "bench").ranges)


def profile(job: Job) -> None:
    """Where the time goes, by function; the profiler itself makes small functions look larger than they are."""
    profiler = cProfile.Profile(time.perf_counter)
    profiler.runcall(work, job)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(12)
    print(json.dumps({"profile": text.getvalue()}))


if __name__ == "__main__":
    order: Job = json.loads(sys.argv[1])
    if not order.get("hash", True):
        chunks.hashlib = NoHash()  # type: ignore[assignment]
    if order.get("profile"):
        profile(order)
    else:
        run(plan if order.get("plan") else work, order)

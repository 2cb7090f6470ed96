"""Writes TPC-H's lineitem as tab-separated text: dbgen as DuckDB's tpch extension has it. Runs in the peers' venv."""

from __future__ import annotations

import sys

from bench.child import load_extension


def write(path: str, scale: float) -> None:
    try:
        import duckdb
        import duckdb_extension_tpch  # noqa: F401
    except ImportError as error:
        sys.exit(f"bench: dbgen is missing ({error}): bench/requirements.txt lists what brings it")
    with duckdb.connect(config={"threads": 2}) as connection:
        load_extension(connection, "tpch")
        connection.execute(f"CALL dbgen(sf={scale})")
        # Nothing in it wants quoting: dbgen's texts have no tabs, backslashes or line ends (TPC-H, section 4.2.2.10).
        connection.execute(f"COPY lineitem TO '{path}' (DELIMITER '\t', HEADER false, QUOTE '', ESCAPE '')")


if __name__ == "__main__":
    write(sys.argv[1], float(sys.argv[2]))

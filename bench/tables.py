"""The tables that are measured: their SQL, and what the engine is told of them."""

from __future__ import annotations

from dataclasses import dataclass

from exportapp.engine.specs import Column, Query

DECIMAL = "DECIMAL(15,2) NOT NULL"

LINEITEM = (  # the types of TPC-H, section 1.4
    ("l_orderkey", "BIGINT NOT NULL", "integer"),
    ("l_partkey", "BIGINT NOT NULL", "integer"),
    ("l_suppkey", "BIGINT NOT NULL", "integer"),
    ("l_linenumber", "INT NOT NULL", "integer"),
    ("l_quantity", DECIMAL, "decimal"),
    ("l_extendedprice", DECIMAL, "decimal"),
    ("l_discount", DECIMAL, "decimal"),
    ("l_tax", DECIMAL, "decimal"),
    ("l_returnflag", "CHAR(1) NOT NULL", "text"),
    ("l_linestatus", "CHAR(1) NOT NULL", "text"),
    ("l_shipdate", "DATE NOT NULL", "date"),
    ("l_commitdate", "DATE NOT NULL", "date"),
    ("l_receiptdate", "DATE NOT NULL", "date"),
    ("l_shipinstruct", "CHAR(25) NOT NULL", "text"),
    ("l_shipmode", "CHAR(10) NOT NULL", "text"),
    ("l_comment", "VARCHAR(44) NOT NULL", "text"),
)
HARD = (
    ("id", "BIGINT NOT NULL", "integer"),
    ("code", "VARCHAR(40)", "text"),
    ("name", "VARCHAR(200)", "text"),
    ("note", "TEXT", "text"),
    ("story", "TEXT", "text"),
    ("amount", "DECIMAL(18,2)", "decimal"),
    ("rate", "DOUBLE", "float"),
    ("active", "TINYINT(1)", "integer"),
    ("made", "DATETIME(6)", "datetime"),
    ("day", "DATE", "date"),
    ("document", "JSON", "json"),
    ("raw", "BLOB", "binary"),
)
SOLD = (  # the narrow table of times that most databases have; each row at a moment of its own
    ("id", "BIGINT NOT NULL", "integer"),
    ("sold_at", "TIMESTAMP NOT NULL", "datetime"),
    ("changed_at", "TIMESTAMP NULL", "datetime"),
    ("status", "VARCHAR(20) NOT NULL", "text"),
    ("total", "DECIMAL(12,2) NOT NULL", "decimal"),
)
WIDE = (("id", "BIGINT NOT NULL", "integer"), ("body", "LONGTEXT NOT NULL", "text"))
SEQUENCE = (("id", "", "integer"), ("name", "", "text"), ("amount", "", "decimal"), ("day", "", "date"))


@dataclass(frozen=True)
class Table:
    """`relation` is a SELECT for the table that no disk has to hold."""

    name: str
    fields: tuple[tuple[str, str, str], ...]
    key: tuple[str, ...]
    relation: str = ""

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(name, kind, 2 if kind == "decimal" else None) for name, _, kind in self.fields)

    def query(self) -> Query:
        """As a dataset would declare it: with its key, which the engine reads behind the columns."""
        columns = {column.name: column for column in self.columns}
        key = tuple(columns[name] for name in self.key)
        return Query(self.relation or self.name, bool(self.relation), self.columns, key)

    @property
    def ddl(self) -> str:
        fields = ", ".join(f"{name} {kind}" for name, kind, _ in self.fields)
        return f"CREATE OR REPLACE TABLE {self.name} ({fields}, PRIMARY KEY ({', '.join(self.key)})) ENGINE=InnoDB"


def sequence(rows: int) -> Table:
    """Any number of rows, made by the server while it reads them."""
    select = (
        "SELECT seq AS id, CONCAT('customer no. ', seq) AS name, CAST(seq / 7 AS DECIMAL(15,2)) AS amount, "
        f"DATE_ADD('2000-01-01', INTERVAL seq % 9000 DAY) AS day FROM seq_1_to_{rows}"
    )
    return Table(f"sequence_{rows}", SEQUENCE, ("id",), select)


TABLES = {
    table.name: table
    for table in (
        Table("lineitem", LINEITEM, ("l_orderkey", "l_linenumber")),
        Table("lineitem_small", LINEITEM, ("l_orderkey", "l_linenumber")),
        Table("hard", HARD, ("id",)),
        Table("hard_small", HARD, ("id",)),
        Table("sold", SOLD, ("id",)),
        Table("wide", WIDE, ("id",)),
    )
}


def table_of(name: str) -> Table:
    """A table by its name; `sequence_N` has N rows."""
    return TABLES[name] if name in TABLES else sequence(int(name.removeprefix("sequence_")))

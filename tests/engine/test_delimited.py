"""CSV: golden bytes by RFC 4180, and Python's own csv module as an independent reader."""

from __future__ import annotations

import base64
import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exportapp.engine.encoders.delimited import CSVEncoder, TSVEncoder
from exportapp.engine.encoders.formulas import is_formula
from exportapp.engine.specs import Column, FileOptions, Row
from tests.engine.scenes import a_decimal, a_text, an_integer, columns, plain_text, random_rows, some_bytes
from tests.oracles import formulas
from tests.oracles.examples import examples

EXACT = FileOptions(exact=True)


def csv_of(names: str, *rows: Row, **options: Any) -> bytes:
    return CSVEncoder(columns(names), FileOptions(**options)).encode(rows)


def read_back(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def test_the_header_is_quoted_and_its_quotes_are_doubled() -> None:
    names = ("id", 'say "hi"', "a,b\r\nc", "größe 🦀", "%s")
    header = CSVEncoder([Column(name) for name in names]).start()
    assert header == '"id","say ""hi""","a,b\r\nc","größe 🦀","%s"\r\n'.encode()
    assert read_back(header) == [list(names)]


def test_texts_are_quoted_numbers_and_times_are_bare() -> None:
    row = (b"ann", b"7", b"-1.50", b"1e+20", b"1", b"2024-02-29", b"2024-02-29 10:00:00.5", b"-838:59:59", b'{"a":1}')
    names = "a b:integer c:decimal d:float e:boolean f:date g:datetime h:time i:json"
    golden = b'"ann",7,-1.50,1e+20,1,2024-02-29,2024-02-29 10:00:00.5,-838:59:59,"{""a"":1}"\r\n'
    assert csv_of(names, row) == golden


def test_every_digit_stays() -> None:
    digits = b"12345678901234567890123456789012345.123456789012345678901234567890"
    assert csv_of("a:decimal b:integer", (digits, b"18446744073709551615")) == digits + b",18446744073709551615\r\n"


def test_null_and_empty_text_stay_apart() -> None:
    assert csv_of("a b:integer c", (b"", None, None), (None, b"0", b"")) == b'"",,\r\n,0,""\r\n'


def test_null_and_empty_binary_stay_apart() -> None:
    assert csv_of("a:binary b", (b"", b"x"), (None, b"x")) == b'"","x"\r\n,"x"\r\n'


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_a_column_by_itself_makes_no_empty_line(kind: str) -> None:
    assert csv_of(f"a:{kind}", (None,), (b"",)) == b'\\N\r\n""\r\n'


def test_a_text_that_looks_like_the_null_mark_is_quoted() -> None:
    assert csv_of("a", (None,), (b"\\N",)) == b'\\N\r\n"\\N"\r\n'


def test_quotes_are_doubled_and_commas_line_ends_and_emoji_kept() -> None:
    assert csv_of("a b", (b'a,"b"', "x\r\ny\n🦀".encode())) == '"a,""b""","x\r\ny\n🦀"\r\n'.encode()


def test_one_value_with_a_quote_changes_no_other_row_of_its_batch() -> None:
    assert csv_of("a b", (b"x", None), (b'"', b"y"), (None, b"z")) == b'"x",\r\n"""","y"\r\n,"z"\r\n'


def test_binary_is_base64() -> None:
    assert csv_of("a:binary b:integer", (b'\x00"\n\xff', b"1")) == b'"ACIK/w==",1\r\n'


def test_text_that_is_no_utf8_passes_byte_by_byte() -> None:
    assert csv_of("a", (b"\xff\xfe%",)) == b'"\xff\xfe%"\r\n'


@pytest.mark.parametrize("seed", range(30))
def test_pythons_csv_module_reads_back_what_was_written(seed: int) -> None:
    rows = random_rows(seed, (a_text, an_integer, a_decimal, plain_text, some_bytes))
    encoder = CSVEncoder(columns("a b:integer c:decimal d e:binary"), EXACT)
    meant = [[*map(_text, row[:4]), base64.b64encode(row[4] or b"").decode()] for row in rows]
    assert read_back(encoder.start() + encoder.encode(rows)) == [list("abcde"), *meant]


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("width", [1, 3])
def test_a_whole_batch_gives_the_bytes_of_a_plain_loop(seed: int, width: int) -> None:
    rows = random_rows(seed, (plain_text, an_integer, a_text)[:width])
    encoder = CSVEncoder(columns("a b:integer c")[:width], EXACT)
    assert encoder.encode(rows) == b"".join(_plainly(row) for row in rows)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("encoder", [CSVEncoder, TSVEncoder])
def test_a_whole_batch_gives_the_bytes_of_its_rows(seed: int, encoder: type[CSVEncoder]) -> None:
    rows = random_rows(seed, (plain_text, an_integer, a_text))
    whole = encoder(columns("a b:integer c"))
    assert whole.encode(rows) == b"".join(encoder(columns("a b:integer c")).encode([row]) for row in rows)


FORMULAS = [
    "=1+1",
    "+1+cmd",
    "-1+cmd|x",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\0=1",
    "＝1+1",
    "＋1+1",
    "－1+1",
    "＠x",
    "-a",
    "+-1",
]
HARMLESS = ["a=1", " =1", "-", "+", "-1.5", "-1e5", "+44 20 7946-0958", "-1,000.50", "'=1", "", "1-1", "a\t=1", "ｱ"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_like_a_formula_gets_an_apostrophe_in_any_company(text: str, delimiter: str) -> None:
    for company in (b"x", b'"', None):
        for raw in (text.encode(), text.encode() + b'"'):
            data = csv_of("a b", (company, raw), (raw, company), delimiter=delimiter)
            back = list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True))
            assert [back[0][1], back[1][0]] == ["'" + raw.decode()] * 2


@pytest.mark.parametrize("digits", ["1" * 5000, "1 " * 2500, "1e" + "1" * 5000])
@pytest.mark.parametrize("company", [b"x", b'"', None])
def test_no_text_is_long_to_look_at(digits: str, company: bytes | None) -> None:
    """A pattern that can read digits in more than one way takes for ever over some texts, and anybody may write those."""
    for text in (f"-{digits}x", f"+{digits}\x7f"):
        assert csv_of("a b", (company, text.encode())).endswith(f'"\'{text}"\r\n'.encode())


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_are_not_touched(text: str) -> None:
    assert read_back(csv_of("a b", (b"x", text.encode()))) == [["x", text]]


@pytest.mark.parametrize("text", FORMULAS + HARMLESS)
def test_exact_files_have_every_text_as_it_is(text: str) -> None:
    assert read_back(csv_of("a b", (b"x", text.encode()), exact=True)) == [["x", text]]


@pytest.mark.parametrize("number", ["-1", "-1.5", "-1e5", "-838:59:59"])
def test_numbers_and_times_are_never_touched(number: str) -> None:
    for kind in ("integer", "decimal", "float", "time"):
        assert csv_of(f"a:{kind} b", (number.encode(), b"x")) == f'{number},"x"\r\n'.encode()


BASES = [
    (b"\xf8\x0d\x7e", "'+A1+"),
    (b"\xfb\x5d\xb7", "+123"),
    (b"\xf8\x0d\x7e\xfb\x5d\xb7", "'+A1++123"),
    (b"=1", "PTE="),
]


@pytest.mark.parametrize(("raw", "text"), BASES)
def test_base64_like_a_formula_gets_an_apostrophe_as_texts_do(raw: bytes, text: str) -> None:
    for company in (b"x", b'"', b"\xf8\x0d\x7e", None):
        back = read_back(csv_of("a:binary b:binary", (company, raw), (raw, company), (None, raw)))
        assert [back[0][1], back[1][0], back[2][1]] == [text] * 3
    assert read_back(csv_of("a:binary", (raw,), exact=True)) == [[text.removeprefix("'")]]


ODD_MOMENTS = [b"+T1+Z2", b"-T1", b"+1+T1", b"-Z1 ", b"+2024-01-01T00:00:00Z"]


@pytest.mark.parametrize("kind", ["date", "datetime", "time"])
@pytest.mark.parametrize("odd", ODD_MOMENTS)
@pytest.mark.parametrize("company", [b"2024-01-01 10:00:00", b"-12:30:00", None])
def test_a_moment_of_a_database_without_types_is_no_formula(kind: str, odd: bytes, company: bytes | None) -> None:
    usual = company or b""
    assert csv_of(f"a:{kind} b", (odd, b"x"), (company, b"y")) == b'"\'%b","x"\r\n%b,"y"\r\n' % (odd, usual)
    assert csv_of(f"a:{kind} b", (odd, b"x"), exact=True) == b'%b,"x"\r\n' % odd


@pytest.mark.parametrize(
    "moment", [b"-838:59:59", b"-00:00:01.500000", b"+12:30", b"2024-01-01 10:00:00+02:00", b"2024-01-01T10:00Z"]
)
def test_a_moment_that_names_no_cell_is_bare(moment: bytes) -> None:
    assert csv_of("a:datetime b", (moment, b"x"), (None, b"y")) == moment + b',"x"\r\n,"y"\r\n'


@examples(200)
@given(st.text('+-=@＋－＝＠ .,eE1٣a\t\0"\x7f', max_size=8))
def test_the_rule_is_the_one_that_the_documentation_says(text: str) -> None:
    assert is_formula(text.encode()) == formulas.is_formula(text)
    for company in ("x", "+1", "=1"):
        assert read_back(csv_of("a b", (company.encode(), text.encode()))) == [
            [formulas.defused(company), formulas.defused(text)]
        ]


def test_titles_are_no_formulas_either() -> None:
    assert CSVEncoder([Column("a", label="=1+1")]).start() == b'"\'=1+1"\r\n'


def test_the_header_has_labels_or_names() -> None:
    named = Column("total", label="Total amount")
    assert CSVEncoder([named]).start() == b'"Total amount"\r\n'
    assert CSVEncoder([named], FileOptions(header="names")).start() == b'"total"\r\n'


def test_excel_people_get_a_byte_order_mark_and_their_delimiter() -> None:
    encoder = CSVEncoder(columns("a b:integer"), FileOptions(bom=True, delimiter=";"))
    assert encoder.start() + encoder.encode([(b"x;y", b"1")]) == b'\xef\xbb\xbf"a";"b"\r\n"x;y";1\r\n'


def test_null_can_be_a_word_that_no_text_is_taken_for() -> None:
    assert csv_of("a b:integer", (None, None), (b"NULL", b"1"), null="NULL") == b'NULL,NULL\r\n"NULL",1\r\n'


def test_tsv_has_tabs_between() -> None:
    encoder = TSVEncoder(columns("a b:integer c"))
    assert encoder.start() + encoder.encode([(b"x\ty", b"1", None)]) == b'"a"\t"b"\t"c"\r\n"x\ty"\t1\t\r\n'


def _plainly(row: Row) -> bytes:
    null = b"\\N" if len(row) == 1 else b""
    fields = [null if value is None else b'"' + value.replace(b'"', b'""') + b'"' for value in row]
    if len(row) > 1:
        fields[1] = row[1] or b""
    return b",".join(fields) + b"\r\n"


def test_batches_join_to_the_whole() -> None:
    rows = random_rows(7, (a_text, an_integer))
    encoder = CSVEncoder(columns("a b:integer"), EXACT)
    assert encoder.encode(rows[:20]) + encoder.encode([]) + encoder.encode(rows[20:]) == encoder.encode(rows)
    assert encoder.finish() == b""

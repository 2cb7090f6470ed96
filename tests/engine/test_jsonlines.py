"""JSON Lines: golden bytes, and Python's json module as an independent reader that keeps decimals."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exportapp.engine.encoders import jsonscan
from exportapp.engine.encoders.jsonlines import JSONLinesEncoder
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, Row
from tests.engine.scenes import a_decimal, a_text, an_integer, columns, random_rows, some_bytes
from tests.oracles.examples import examples


def lines_of(names: str, *rows: Row) -> bytes:
    encoder = JSONLinesEncoder(columns(names))
    return encoder.start() + encoder.encode(rows) + encoder.finish()


def value_of(kind: str, raw: bytes) -> bytes:
    """What is written for one value of a column `a`."""
    return lines_of(f"a:{kind}", (raw,)).removeprefix(b'{"a":').removesuffix(b"}\n")


def read_back(data: bytes) -> list[Any]:
    return [json.loads(line, parse_float=Decimal) for line in data.decode().split("\n")[:-1]]


def test_a_row_is_an_object_on_its_line() -> None:
    row = (b"1", b"12.50", "größer 🦀".encode(), b"1", b"2024-02-29 10:00:00", b"\x00\xff", None)
    golden = '{"a":1,"b":12.50,"c":"größer 🦀","d":true,"e":"2024-02-29 10:00:00","f":"AP8=","g":null}\n'
    assert lines_of("a:integer b:decimal c d:boolean e:datetime f:binary g", row) == golden.encode()


@pytest.mark.parametrize(
    "digits",
    ["18446744073709551615", "-9223372036854775808", f"{'9' * 35}.{'1' * 30}", "0.10", "-0", "1e+20", "2.5E-308"],
)
def test_numbers_keep_all_their_digits(digits: str) -> None:
    assert value_of("decimal", digits.encode()) == digits.encode()
    [row] = read_back(lines_of("a:decimal", (digits.encode(),)))
    assert Decimal(row["a"]) == Decimal(digits)


@pytest.mark.parametrize("odd", ["0000", "00042", "-01", "+1", ".5", "1.", "inf", "nan", "1e", "", "1\n"])
@pytest.mark.parametrize("kind", ["integer", "float", "boolean"])
def test_numbers_that_json_does_not_know_are_texts(kind: str, odd: str) -> None:
    assert json.loads(value_of(kind, odd.encode())) == odd


def test_truths_are_true_and_false_and_a_third_value_stays_a_number() -> None:
    assert [value_of("boolean", raw) for raw in (b"0", b"1", b"2", b"-1")] == [b"false", b"true", b"2", b"-1"]


def test_null_and_empty_stay_apart() -> None:
    assert lines_of("a b:binary", (b"", b""), (None, None)) == b'{"a":"","b":""}\n{"a":null,"b":null}\n'


def test_names_stay_in_their_letters() -> None:
    assert JSONLinesEncoder([Column("größe 🦀")]).encode([(b"x",)]) == '{"größe 🦀":"x"}\n'.encode()


def test_names_are_escaped_with_null_and_without() -> None:
    name = 'say "50%" \\ %s\n'
    data = JSONLinesEncoder([Column(name), Column("b")]).encode([(b"x", b"y"), (None, b"y"), (None, None)])
    assert read_back(data) == [{name: "x", "b": "y"}, {name: None, "b": "y"}, {name: None, "b": None}]


def test_control_characters_are_escaped_and_break_no_line() -> None:
    text = "".join(map(chr, range(32))) + '"\\/\x7f\u2028\u2029\ufeff🦀%s'
    data = lines_of("a", (text.encode(),))
    assert data.count(b"\n") == 1
    assert not set(data[:-1]) & set(range(32))
    assert read_back(data) == [{"a": text}]


JSONS = (b'{"b": 1.10, "a": 123456789012345678901234567890}', b'{"a":1,"a":2}', b'"\\ud800 \\u00e9 \\/"', b"[]", b"null",
         '{"größe": "🦀"}'.encode(), b"-0.0", b"1E400", b"9" * 5000, b"[" * 30 + b"]" * 30)  # fmt: skip


@pytest.mark.parametrize("document", JSONS)
def test_json_is_embedded_as_it_was_written(document: bytes) -> None:
    assert value_of("json", document) == document


def test_json_over_several_lines_is_embedded_in_one() -> None:
    assert value_of("json", b'\n{\r\n\t"a": "x\\n"\n}\n') == b'{  \t"a": "x\\n" }'


@pytest.mark.parametrize("broken", ["{", "NaN", "[Infinity]", "", "01", "{'a': 1}", '"a\nb"', "\ufeff1", "[" * 9999])
def test_what_is_no_json_becomes_a_text(broken: str) -> None:
    assert json.loads(value_of("json", broken.encode())) == broken


@pytest.mark.parametrize("kind", ["text", "json", "date"])
def test_bytes_that_are_no_utf8_end_the_export_with_a_sentence(kind: str) -> None:
    for raw in (b"a\xff", b'"\xed\xa0\x80"', b'"\xff"'):
        with pytest.raises(ExportError, match="no UTF-8 text") as caught:
            value_of(kind, raw)
        assert caught.value.permanent


def parses(text: str) -> bool:
    """Whether Python's json takes it; NaN and Infinity are its own."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse, parse_float=str, parse_int=str)
    except ValueError:
        return False
    return True


TOKENS = ["{", "}", "[", "]", ",", ":", '"a"', '"', "1", "0", "-", ".5", "e5", "E+1", "true", "null", "NaN", "Infinity", " ",
          "\t", "\r\n", "\\", "\\n", "\\u00e9", "\\ud83e", "\\uD8", "\x00", "\x1f", "\x7f", "\x0b", "\ufeff", "ü", "🦀", "01",
          "-0", "1e400", "\u0661", "\u00a0", "'", "/", "//", "nul"]  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
VALUES = st.recursive(
    LEAVES,
    lambda more: st.lists(more, max_size=4) | st.dictionaries(st.text(max_size=4), more, max_size=4),
    max_leaves=25,
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """JSON in one way of writing it or another, perhaps with a few more levels around."""
    space = draw(st.sampled_from(["", " ", "\n\t", "\r"]))
    text = json.dumps(draw(VALUES), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 2])),
                      separators=(f"{space},{space}", f"{space}:{space}"))  # fmt: skip
    for opened in draw(st.lists(st.sampled_from(["[", '{"k":', "[1,", '{"a":[],"k":']), max_size=8)):
        text = f"{opened}{space}{text}{space}" + ("]" if opened[0] == "[" else "}")
    return space + text + space


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """JSON with something in it taken out, doubled, put in or made something else."""
    text = draw(documents())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 3))
        text = text[:start] + draw(st.sampled_from(["", text[start:end] * 2, *TOKENS])) + text[end:]
    return text


@examples(200)
@given(documents())
def test_what_is_json_is_found_to_be(text: str) -> None:
    assert parses(text)
    assert jsonscan.is_json(text.encode())


@examples(500)
@given(damaged() | st.lists(st.sampled_from(TOKENS), max_size=12).map("".join) | st.text(max_size=8))
def test_only_what_pythons_json_takes_is_found_to_be_json(text: str) -> None:
    assert jsonscan.is_json(text.encode()) == parses(text)


@pytest.mark.parametrize("levels", range(1, 12))
@pytest.mark.parametrize(
    "inner", ["", "1", "1,2", "1,", ",1", "1 2", '"k":1', '"k":1,', '"k"', '"k":', "[],{}", "[1}", "1]", '{"k":}']
)
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[0,{"a":0,"b":', '},"c"]')])
def test_a_fault_is_found_at_any_depth(levels: int, inner: str, opened: str, closed: str) -> None:
    for text in (f"[{inner}]", f"{{{inner}}}"):
        whole = opened * levels + text + closed * levels
        for tried in (whole, f" {whole}\n", whole + closed, whole[:-1], whole + "x", opened + whole):
            assert jsonscan.is_json(tried.encode()) == parses(tried)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a": ', "}"), ('[1, {"b": ', "}, []]")])
def test_json_that_is_nested_too_deep_for_most_programs_is_a_text(opened: str, closed: str) -> None:
    levels = jsonscan.MOST_DEEP // (opened.count("[") + opened.count("{"))
    assert jsonscan.is_json((opened * (levels - 1) + "[1]" + closed * (levels - 1)).encode())
    for more in (1, 100_000):
        deep = opened * (levels + more) + "1" + closed * (levels + more)
        assert json.loads(value_of("json", deep.encode())) == deep


PEAK = """
from exportapp.engine.encoders.jsonlines import JSONLinesEncoder
from exportapp.engine.specs import Column
encoder = JSONLinesEncoder([Column("a", "json")])
raw = eval(made).encode()
assert len(encoder.encode([(raw,)])) == len(raw) + len('{"a":}') + 1
print(max(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024)
"""


@pytest.mark.parametrize("made", ["'[' + '[],' * 5_000_000 + '1]'", "'[' + '{\"a\":1},' * 1_700_000 + '1]'",
                                  "'[' + '1,' * 7_500_000 + '1]'", "'[' * 9 + '[1],' * 4_000_000 + '1' + ']' * 9"])  # fmt: skip
def test_a_json_value_of_15_megabytes_is_looked_at_in_little_memory(made: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"made = {made!r}\n{PEAK}"], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 100


def test_percent_signs_in_values_stay() -> None:
    assert lines_of("a b:binary", (b"%s%%%b", None)) == b'{"a":"%s%%%b","b":null}\n'


@pytest.mark.parametrize("seed", range(30))
def test_pythons_json_module_reads_back_what_was_written(seed: int) -> None:
    rows = random_rows(seed, (a_text, an_integer, a_decimal, some_bytes))
    meant = [dict(zip("abcd", map(_value, (str, int, Decimal, _base64), row), strict=True)) for row in rows]
    assert read_back(lines_of("a b:integer c:decimal d:binary", *rows)) == meant


def _value(kind: Any, raw: bytes | None) -> Any:
    return None if raw is None else kind(raw if kind is _base64 else raw.decode())


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("seed", range(10))
def test_a_whole_batch_gives_the_bytes_of_its_rows(seed: int) -> None:
    rows = random_rows(seed, (a_text, an_integer, some_bytes))
    encoder = JSONLinesEncoder(columns("a b:integer c:binary"))
    assert encoder.encode(rows) == b"".join(encoder.encode([row]) for row in rows)

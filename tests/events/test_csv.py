"""CSV: what stands in a file is what is read, row by row and digit by digit, or one line says why not."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.formats.text import entries as text
from streams.events.reading import open_entries

CASES = Path(__file__).parent / "text_cases"


def rows(path: Path, selection: str = "[:]") -> list[dict[str, Any]]:
    with open_entries(str(path), EventSelection.parse(selection)) as entries:
        found = [row for cut in entries.cuts(1 << 16) for row in entries.read(*cut).to_pylist()]
        assert len(found) == entries.entries
        return found


def column(tmp_path: Path, *texts: str) -> tuple[pa.DataType, list[Any]]:
    """The type and the values of a column of these texts, with another one beside it."""
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "".join(f"{text},z\n" for text in texts), newline="")
    with open_entries(str(path), EventSelection.parse("{a}")) as entries:
        return entries.schema.field("a").type, entries.read(0, entries.entries).column("a").to_pylist()


def refusal(path: Path, selection: str = "[:]") -> StorageError:
    with pytest.raises(StorageError) as caught:
        rows(path, selection)
    assert "\n" not in str(caught.value)
    return caught.value


def test_cases_that_went_wrong(tmp_path: Path) -> None:
    assert rows(CASES / "cr-only.csv") == [{"id": n, "name": name} for n, name in ((1, "a"), (2, "b"), (3, "c"))]
    assert rows(CASES / "inch-header.csv") == [{"id": 1, 'len 12"': 3}, {"id": 2, 'len 12"': 4}]
    assert [row["adler32"] for row in rows(CASES / "leading-zeros.csv")] == ["00000001", "00040001", "12345678"]
    values = [row["x"] for row in rows(CASES / "nan.csv")]
    assert (values[0], values[2]) == (1.5, 2.5)
    assert math.isnan(values[1])
    error = refusal(CASES / "latin1.csv")
    assert error.failure_class == "permanent"
    assert "byte 7, line 2" in error.what
    assert "encoding=" in error.next
    assert rows(CASES / "latin1.csv", "[:];encoding=latin-1") == [{"name": "München"}]
    lone = tmp_path / "big.csv"
    whats = ['12"' if n == 5 else "x" for n in range(30_000)]
    lone.write_text("id,what\n" + "".join(f"{n},{what} pipe {'y' * 100}\n" for n, what in enumerate(whats)))
    found = rows(lone)
    assert len(found) == 30_000
    assert found[5]["what"].startswith('12" pipe y')


@pytest.mark.parametrize(
    ("texts", "kind", "values"),
    [
        (("1", "-5", "0"), pa.int64(), [1, -5, 0]),
        (("0001", "2"), pa.string(), ["0001", "2"]),
        (("+1", "2"), pa.string(), ["+1", "2"]),
        (("-0", "2"), pa.string(), ["-0", "2"]),
        ((" 1", "2"), pa.string(), [" 1", "2"]),
        (("1 ",), pa.string(), ["1 "]),
        (("0x1F",), pa.string(), ["0x1F"]),
        (("00",), pa.string(), ["00"]),
        (("1_000",), pa.string(), ["1_000"]),
        (("9223372036854775807", "-9223372036854775808"), pa.int64(), [(1 << 63) - 1, -(1 << 63)]),
        (("18446744073709551615", "0"), pa.uint64(), [(1 << 64) - 1, 0]),
        (("18446744073709551615", "-1"), pa.string(), ["18446744073709551615", "-1"]),
        (("18446744073709551616",), pa.string(), ["18446744073709551616"]),
        (("0.500", "1e5", ".5", "5."), pa.float64(), [0.5, 1e5, 0.5, 5.0]),
        (("007.5", "+1.5"), pa.float64(), [7.5, 1.5]),
        ((" 1.5", "2.5\t"), pa.float64(), [1.5, 2.5]),
        ((" 1", "2.5"), pa.string(), [" 1", "2.5"]),
        (("1.5", "0001"), pa.string(), ["1.5", "0001"]),
        (("1.5", "+1"), pa.string(), ["1.5", "+1"]),
        (("1.5", "-0"), pa.float64(), [1.5, -0.0]),
        (("1.5", "2"), pa.float64(), [1.5, 2.0]),
        (("1.5", "9007199254740993"), pa.string(), ["1.5", "9007199254740993"]),
        (("9007199254740993", "2"), pa.int64(), [9007199254740993, 2]),
        (("1.5", "18446744073709551616"), pa.float64(), [1.5, 2.0**64]),
        (("0.1234567890123456789012",), pa.string(), ["0.1234567890123456789012"]),
        ((f"{1.2345678901234567:.18e}", "-1.000000000000000056e-01"), pa.float64(), [1.2345678901234567, -0.1]),
        (("1.234567890123456789e+00",), pa.string(), ["1.234567890123456789e+00"]),
        (("0.1000000000000000055511151231257827",), pa.float64(), [0.1]),
        (("1700000000.123456", "0.1"), pa.float64(), [1700000000.123456, 0.1]),
        (("1e400",), pa.string(), ["1e400"]),
        (("1e-400",), pa.string(), ["1e-400"]),
        (("5e-324", "0e-999", "0.0"), pa.float64(), [5e-324, 0.0, 0.0]),
        (("1.2345e-320",), pa.string(), ["1.2345e-320"]),
        (("inf", "-Infinity", "1.5"), pa.float64(), [math.inf, -math.inf, 1.5]),
        (("1.5", "NA"), pa.string(), ["1.5", "NA"]),
        (("1", "null"), pa.string(), ["1", "null"]),
        (("N/A", "NULL", ""), pa.string(), ["N/A", "NULL", None]),
        (("1", ""), pa.int64(), [1, None]),
        (("1", '""'), pa.int64(), [1, None]),
        (('"1"', '"2"'), pa.int64(), [1, 2]),
        (("x", '""', ""), pa.string(), ["x", "", None]),
        (("", ""), pa.string(), [None, None]),
        (("true", "false"), pa.bool_(), [True, False]),
        (("True", "False"), pa.string(), ["True", "False"]),
        (("TRUE",), pa.string(), ["TRUE"]),
        (("true", "1"), pa.string(), ["true", "1"]),
        (("2026-01-01", "2026-01-01T10:00:00"), pa.string(), ["2026-01-01", "2026-01-01T10:00:00"]),
        (("a\0b",), pa.string(), ["a\0b"]),
        (('a"b"c', '12"'), pa.string(), ['a"b"c', '12"']),
        (('"a""b"', '"a,\nb"'), pa.string(), ['a"b', "a,\nb"]),
    ],
)
def test_a_column_keeps_every_value(
    tmp_path: Path, texts: tuple[str, ...], kind: pa.DataType, values: list[Any]
) -> None:
    assert column(tmp_path, *texts) == (kind, values)
    assert str(column(tmp_path, *texts)[1]) == str(values), "zeros have signs"


def test_nan_is_not_missing(tmp_path: Path) -> None:
    kind, values = column(tmp_path, "1", "NaN", "", "nan")
    assert kind == pa.float64()
    assert (values[0], values[2]) == (1.0, None)
    assert math.isnan(values[1])
    assert math.isnan(values[3])
    assert column(tmp_path, "9007199254740993", "NaN")[0] == pa.string()


def test_types_are_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PIECE_BYTES", 50)
    many = [str(n) for n in range(100)]
    assert column(tmp_path, *many, "0001") == (pa.string(), [*many, "0001"])
    assert column(tmp_path, *many, "NA")[1][-1] == "NA"
    assert column(tmp_path, *many, "0.5")[0] == pa.float64()
    assert column(tmp_path, "9007199254740993", *many, "0.5")[0] == pa.string()
    assert column(tmp_path, *many, "18446744073709551615")[0] == pa.uint64()
    assert column(tmp_path, "-1", *many, "18446744073709551615")[0] == pa.string()
    assert column(tmp_path, "-0", *many)[0] == pa.string()
    assert column(tmp_path, "-0", *many, "0.5")[0] == pa.float64()
    assert column(tmp_path, "true", *many, "false")[0] == pa.string()


def written(tmp_path: Path, raw: bytes | str, name: str = "x.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


@pytest.mark.parametrize(
    "raw",
    [
        b"a,b\n1,x\n2,y\n",
        b"a,b\n1,x\n2,y",
        b"a,b\r\n1,x\r\n2,y\r\n",
        b"a,b\r\n1,x\n2,y\r\n",
        b"a,b\r1,x\r2,y\r",
        b"a,b\r1,x\r2,y",
        b"a,b\r\r\n1,x\r\r\n2,y\r\r\n",
        b"\n\r\na,b\n\n1,x\n\n\n2,y\n\n",
        b"a,b\r\r1,x\r2,y\r\r",
        b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
        b'"a","b"\n"1","x"\n"2","y"\n',
    ],
)
def test_line_ends_blank_lines_and_marks(tmp_path: Path, raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert rows(written(tmp_path, raw)) == expected
    monkeypatch.setattr(text, "PIECE_BYTES", 3)
    assert rows(written(tmp_path, raw)) == expected


def test_a_blank_line_is_a_row_where_there_is_one_column(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a\n1\n\n3\n")) == [{"a": 1}, {"a": None}, {"a": 3}]
    assert rows(written(tmp_path, "a\r\n1\r\n\r\n")) == [{"a": 1}, {"a": None}]


@pytest.mark.parametrize(
    ("raw", "said", "failure_class"),
    [
        ("a,b\n1,2\n3\n", "line 3 has 1 value, the first line names 2", "data-bad"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4 has 3 values", "data-bad"),
        ('a,b\n"x\ny",2\n3\n', "line 4 has 1 value", "data-bad"),
        ('a,b\n1,2\n3,"x\n4,5\n', "in line 3 a quote opens a value that nothing closes", "data-bad"),
        ('a,b\n1,"x"y\n', "in line 2 a value goes on behind its closing quote", "permanent"),
        ('a,b\n1,""x""\n', "in line 2 a value goes on behind its closing quote", "permanent"),
        ("a,b\n1,x\ry\n", "in line 2 a carriage return stands alone", "permanent"),
        ("a,b\r1,x\ny,2\r", "a line feed stands alone", "permanent"),
        ("a,a\n1,2\n", "two columns have one name, 'a'", "permanent"),
        ("\n\n", "no line names the columns", "data-bad"),
        ("", "no line names the columns", "data-bad"),
        (b"\xff\xfea\0,\0", "begins with the mark of utf-16-le", "permanent"),
        ("a,b\n1,2\n".encode("utf-16-le"), "more than a third are NUL", "permanent"),
        (b"a,b\n1,x\n2,\xfc\n", "it is not UTF-8 at byte 11, line 3", "permanent"),
        (b"a,\xfc\n1,x\n", "it is not UTF-8 at byte 3, line 1", "permanent"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(
    tmp_path: Path, raw: bytes | str, said: str, failure_class: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        error = refusal(written(tmp_path, raw))
        assert said in error.what
        assert error.failure_class == failure_class
        assert failure_class == "data-bad" or "fetch it again" not in str(error)
        monkeypatch.setattr(text, "PIECE_BYTES", 5 if b"a,a" not in bytes(str(raw), "utf8") else 1 << 20)


def test_a_quote_that_nothing_closes_ends_a_large_file_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "PIECE_BYTES", 1 << 12)
    monkeypatch.setattr("streams.events.formats.text.entries.LINE_BYTES_MAX", 1 << 16)
    monkeypatch.setattr("streams.events.formats.csv.entries.LINE_BYTES_MAX", 1 << 16)
    path = written(tmp_path, 'a,b\n1,2\n2,"x\n' + "1,2\n" * 40_000)
    assert "in line 3 a quote opens a value that nothing closes within" in refusal(path).what
    path = written(tmp_path, "a,b\n1,2\n2," + "x" * 100_000 + "\n")
    assert "line 3 is longer than" in refusal(path).what
    assert len(rows(written(tmp_path, 'a,b\n1,2\n2,"x\n' + "1,2\n" * 400 + '"\n'))) == 2


def test_formats_that_a_user_chooses(tmp_path: Path) -> None:
    expected = [{"name": "Zürich", "x": 1.5}, {"name": 'a"', "x": 2.0}]
    body = "name;x\r\nZürich;1.5\r\na';2\r\n".replace("'", '"')
    path = written(tmp_path, body.encode("cp1252"))
    assert rows(path, "[:];encoding=cp1252;separator=\\;") == expected
    assert rows(path, "[0:1]{x};encoding=cp1252;separator=\\u{3b}") == [{"x": 1.5}]
    for encoding in ("utf-16", "utf-32", "utf-16-le", "utf-16-be"):
        path = written(tmp_path, body.encode(encoding))
        assert rows(path, f"[:];encoding={encoding};separator=\\;") == expected
    path = written(tmp_path, "a\tb\n'x\ty'\t1\n", "x.tsv")
    assert rows(path, "[:];quote='") == [{"a": "x\ty", "b": 1}]
    assert "has 3 values" in refusal(path).what
    assert rows(written(tmp_path, 'a|b\n"x|"y"\n'), "[:];separator=|;quote=none") == [{"a": '"x', "b": '"y"'}]
    error = refusal(written(tmp_path, body.encode("utf-16-le")), "[:];encoding=utf-16")
    assert "mark of the byte order" in error.what
    error = refusal(written(tmp_path, b"a\n\x81\n"), "[:];encoding=cp1252")
    assert "it is not cp1252 at byte 3" in error.what


def test_a_file_that_seems_to_have_another_separator_is_told(tmp_path: Path) -> None:
    with open_entries(str(written(tmp_path, "a;b\n1;2\n")), EventSelection()) as entries:
        assert "--separator ';'" in entries.notes[0]
    with open_entries(str(written(tmp_path, "a,b\n1,2\n", "x.tsv")), EventSelection()) as entries:
        assert "','" in entries.notes[0]
    with open_entries(str(written(tmp_path, "a\n1\n")), EventSelection()) as entries:
        assert not entries.notes


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    assert "separator" in refusal(written(tmp_path, '{"a":1}\n', "x.jsonl"), "[:];separator=|").what
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    error = refusal(tmp_path / "x.parquet", "[:];encoding=latin-1")
    assert (error.failure_class, "encoding" in error.what) == ("permanent", True)


def test_first_columns_with_the_names_of_formats(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "root_id,x\n1,2\n")) == [{"root_id": 1, "x": 2}]
    assert rows(written(tmp_path, "PAR1,x\n1,2\n")) == [{"PAR1": 1, "x": 2}]


def strictly(body: str) -> list[list[str]] | None:
    """Rows of two values as Python's own reader has them; None where it or the format finds a fault."""
    try:
        found = [row for row in csv.reader(io.StringIO(body, newline=""), strict=True) if row]
    except csv.Error:
        return None
    return found if all(len(row) == 2 for row in found) else None


FIELDS = st.sampled_from(["a", "", '"', '""', "b", "\n", "\r", "\r\n", ",", '"a"', '"a\nb"', '"a""b"', 'a"', "c,d\n"])


@settings(max_examples=300, deadline=None)
@given(st.lists(FIELDS, max_size=12).map("".join), st.sampled_from(["\n", "\r"]), st.sampled_from([4, 11, 1 << 20]))
@example('a,"\n",b\n', "\n", 4)
@example('a,b"\n"c,"",d\n', "\n", 4)
@example("\ufeffa,b\n", "\n", 4)
def test_rows_are_those_of_a_strict_reader(body: str, end: str, piece: int) -> None:
    expected = strictly(body)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE_BYTES", piece)
        path = written(Path(folder), f"x,y{end}{body}")
        try:
            found = [[row["x"] or "", row["y"] or ""] for row in rows(path)]
        except StorageError as error:
            refused = error.what
        else:
            assert found == expected
            return
    assert expected is None or "stands alone" in refused

"""JSON lines: what stands in a file is what is read, at every depth, or one line says why not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.formats.json_lines.entries import DEPTH_MAX
from streams.events.formats.text import entries as text
from streams.events.reading import open_entries

CASES = Path(__file__).parent / "text_cases"


def rows(path: Path, selection: str = "[:]") -> list[dict[str, Any]]:
    with open_entries(str(path), EventSelection.parse(selection)) as entries:
        found = [row for cut in entries.cuts(1 << 16) for row in entries.read(*cut).to_pylist()]
        assert len(found) == entries.entries
        return found


def written(tmp_path: Path, *lines: str | bytes, end: str = "\n") -> Path:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + end.encode() for line in lines))
    return path


def refusal(path: Path, selection: str = "[:]") -> StorageError:
    with pytest.raises(StorageError) as caught:
        rows(path, selection)
    assert "\n" not in str(caught.value)
    return caught.value


def test_cases_that_went_wrong() -> None:
    assert rows(CASES / "nested-big.jsonl") == [{"ids": [18446744073709551615, 1]}]
    first, second = rows(CASES / "nanlit.jsonl")
    assert math.isnan(first["a"])
    assert second == {"a": 1.5}


@pytest.mark.parametrize(
    ("lines", "kind", "values"),
    [
        (('{"a":18446744073709551615}', '{"a":1}'), pa.uint64(), [(1 << 64) - 1, 1]),
        (('{"a":{"b":[18446744073709551615]}}',), None, [{"b": [(1 << 64) - 1]}]),
        (('{"a":[{"b":18446744073709551615},{"b":2}]}',), None, [[{"b": (1 << 64) - 1}, {"b": 2}]]),
        (('{"a":[9223372036854775807,1]}',), pa.list_(pa.int64()), [[(1 << 63) - 1, 1]]),
        (('{"a":1}', '{"a":1.5}'), pa.float64(), [1.0, 1.5]),
        (('{"a":1.0}', '{"a":2e0}'), pa.float64(), [1.0, 2.0]),
        (('{"a":-0}', '{"a":1}'), pa.float64(), [-0.0, 1.0]),
        (('{"a":0.5}', '{"a":NaN}', '{"a":null}'), pa.float64(), [0.5, math.nan, None]),
        (('{"a":0.1234567890123456}',), pa.float64(), [0.1234567890123456]),
        (('{"a":[5e-324,1e-300]}',), pa.list_(pa.float64()), [[5e-324, 1e-300]]),
        (('{"a":"0.12345678901234567890123"}',), pa.string(), ["0.12345678901234567890123"]),
        (('{"a":"id 12345678901234567890123 x"}',), pa.string(), ["id 12345678901234567890123 x"]),
        (('{"a":"2026-01-01"}', '{"a":"2026-01-01T00:00:00.123456789Z"}'), pa.string(), None),
        (('{"a":["2026-01-01"]}',), pa.list_(pa.string()), [["2026-01-01"]]),
        (('{"a":"\\u2028\\u0000\\n\\ud83d\\ude00"}',), pa.string(), ["\u2028\0\n\U0001f600"]),
        (('{"a":"\u2028\u0085"}',), pa.string(), ["\u2028\u0085"]),
        (('{"a":null}', "{}", '{"a":true}'), pa.bool_(), [None, None, True]),
        (('{"a":[]}', '{"a":[null]}'), pa.list_(pa.string()), [[], [None]]),
    ],
)
def test_a_column_keeps_every_value(tmp_path: Path, lines: tuple[str, ...], kind: Any, values: Any) -> None:
    path = written(tmp_path, *lines)
    with open_entries(str(path), EventSelection()) as entries:
        found = [row["a"] for row in entries.read(0, entries.entries).to_pylist()]
        assert kind is None or entries.schema.field("a").type == kind
    assert str(found) == str(values if values is not None else [json.loads(line)["a"] for line in lines])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (('{"a":18446744073709551616}',), "'a' holds whole numbers that 64 bits do not hold"),
        (('{"a":[[18446744073709551616]]}',), "'a' holds whole numbers that 64 bits do not hold"),
        (('{"a":18446744073709551615}', '{"a":-1}'), "'a' holds whole numbers that 64 bits do not hold"),
        (('{"a":[1.5,9007199254740993]}',), "'a' holds decimals, and whole numbers that no double is"),
        (('{"a":{"x":9007199254740993}}', '{"a":{"x":0.5}}'), "'a' holds decimals, and whole numbers"),
        (('{"a":18446744073709551615}', '{"a":0.5}'), "'a' holds decimals, and whole numbers"),
        (('{"a":0.1234567890123456789012345}',), "'a' holds 0.1234567890123456789012345, of which"),
        (('{"a":[{"b":1.00000000000000000001}]}',), "of which a double keeps not every digit"),
        (('{"a":1e-400}',), "'a' holds 1e-400, of which"),
        (('{"a":1}', '{"a":"1"}'), "'a' holds values of several kinds: numbers, text"),
        (('{"a":true}', '{"a":1}'), "'a' holds values of several kinds"),
        (('{"a":[1,[2]]}',), "'a' holds values of several kinds"),
        (('{"a":{"b":1}}', '{"a":[1]}'), "'a' holds values of several kinds"),
    ],
)
@pytest.mark.parametrize("piece", [8, 1 << 20])
def test_a_column_that_no_type_holds_is_named_and_can_be_left_out(
    tmp_path: Path, lines: tuple[str, ...], said: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "PIECE_BYTES", piece)
    path = written(tmp_path, '{"ok":7}', *lines, '{"ok":8}')
    error = refusal(path)
    assert said.partition(": numbers")[0] in error.what
    assert error.failure_class == "permanent"
    assert [row["ok"] for row in rows(path, "{ok}")] == [7, *[None] * len(lines), 8]
    assert [list(row) for row in rows(path, "[:]?")] == [["ok"]] * (len(lines) + 2)


@pytest.mark.parametrize(
    ("lines", "said", "failure_class"),
    [
        (('{"a":1,"a":2}',), "line 2 names 'a' twice in one object", "permanent"),
        (('{"x":{"a":1,"a":2}}',), "line 2 names 'a' twice in one object", "permanent"),
        (('{"a":"\\ud800"}',), "line 2 holds half of a surrogate pair", "permanent"),
        (('{"a":1e400}',), "line 2 holds 1e400, which is more than doubles hold", "permanent"),
        (('{"a":"x"}', "", '{"a":'), "line 4 is no JSON object", "data-bad"),
        (('[{"a":1}]',), "line 2 holds no JSON object but an array", "data-bad"),
        (("7",), "line 2 holds no JSON object but a number", "data-bad"),
        (('{"a":1}{"a":2}',), "line 2 is no JSON object", "data-bad"),
        (("{", '"a":1}'), "line 2 is no JSON object", "data-bad"),
        ((b'{"a":"\xfc"}',), "it is not UTF-8 at byte 15, line 2", "permanent"),
        (('{"a":' + "[" * 100_000 + "]" * 100_000 + "}",), "line 2 holds more than", "permanent"),
        (('{"a":' * (DEPTH_MAX + 1) + "1" + "}" * (DEPTH_MAX + 1),), "line 2 holds more than", "permanent"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(
    tmp_path: Path, lines: tuple[str | bytes, ...], said: str, failure_class: str
) -> None:
    error = refusal(written(tmp_path, '{"a":0}', *lines))
    assert said in error.what
    assert error.failure_class == failure_class


def test_lists_in_lists_and_brackets_in_text_are_no_depth(tmp_path: Path) -> None:
    deep = '{"a":' + "[" * (DEPTH_MAX - 1) + "]" * (DEPTH_MAX - 1) + ',"s":"' + "[" * 1000 + '"}'
    path = written(tmp_path, *[deep] * 3)
    with open_entries(str(path), EventSelection()) as entries:
        from streams.events.batches import pack, unpack

        assert unpack(pack(entries.read(0, 3))).equals(entries.read(0, 3))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n \n"])
def test_line_ends_and_blank_lines(tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [{"a": n} for n in range(5)]
    lines = [json.dumps(row) for row in expected]
    for _ in range(2):
        assert rows(written(tmp_path, "\ufeff" + lines[0], *lines[1:], end=end)) == expected
        monkeypatch.setattr(text, "PIECE_BYTES", 6)


def test_encodings(tmp_path: Path) -> None:
    line = '{"a":"ü€"}\n{"a":"\U0001f600"}\n'
    for encoding in ("utf-16", "utf-16-be", "utf-32"):
        path = written(tmp_path, line.encode(encoding), end="")
        assert rows(path, f"[:];encoding={encoding}") == [{"a": "ü€"}, {"a": "\U0001f600"}]
    assert rows(written(tmp_path, b'{"a":"\xe4"}'), "[:];encoding=latin-1") == [{"a": "ä"}]


def test_many_large_numbers_are_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = 9007199254740993
    path = written(
        tmp_path, *(f'{{"id":{big + n},"ids":[{big + n}],"x":{n / 7},"s":"{big + n}"}}' for n in range(3000))
    )
    monkeypatch.setattr("streams.events.formats.json_lines.entries.members", None)
    assert rows(path)[:1] == [{"id": big, "ids": [big], "x": 0.0, "s": str(big)}]


NUMBERS = st.one_of(
    st.integers(-(1 << 65), 1 << 65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-9, max_value=9).map(str),
    st.sampled_from(["-0", "1e5", "0.500", "1e-400", "null", '"12345678901234567"', "[1]", "[0.1,-0]"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6), st.sampled_from([10, 1 << 20]))
def test_what_is_read_is_what_was_written_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[str], piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE_BYTES", piece)
        path = written(tmp_path_factory.getbasetemp(), *(f'{{"a":{number}}}' for number in numbers))
        try:
            found = rows(path)
        except StorageError as error:
            found, failure_class = [], error.failure_class
    if not found:
        assert failure_class == "permanent"
        return
    for row, number in zip(found, numbers, strict=True):
        expected = json.loads(number)
        assert row["a"] == expected
        if isinstance(row["a"], float):
            assert math.copysign(1, row["a"]) == math.copysign(1, float(number)), "zeros have signs"

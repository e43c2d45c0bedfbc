"""Names: what is not legal is refused with one clear line, and what is legal stays the same text."""

from __future__ import annotations

import copy
import pickle
import re
import shlex
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core import names as n
from streams.core.selectors import Kind, Selector, parse
from streams.errors import InvalidName, UsageError

UUID = "0b5f6d6e-5a4e-4a55-8f10-0123456789ab"
ALL = (n.Site, n.Lfn, n.Dataset, n.Block, n.IntentId, n.ManifestId, n.Adler32, n.Text)
LEGAL = {
    n.Site: ("T1_US_FNAL", "a", "A" + "0" * 63),
    n.Lfn: (
        "/store/data/x.root",
        "/a",
        "/0/1-2_3.4",
        "/a..b/c...",
        "/store/country=DE/part-0.parquet",
        "/store/_delta_log/_SUCCESS",
        "/a+b.root",
        "/file,v1",
        "/x@y",
        "/a~1",
        "/a=",
        "/" + "a" * 1023,
    ),
    n.Dataset: ("/SingleMuon/Run2026A-v1/NANOAOD",),
    n.Block: ("/SingleMuon/Run2026A-v1/NANOAOD#0001", f"/a/b/c#{UUID}"),
    n.IntentId: (f"T1_A.{UUID}",),
    n.ManifestId: (f"T1_A.{UUID}.0.0", f"T1_A.{UUID}.12.999999999"),
    n.Adler32: ("00000001", "deadbeef"),
    n.Text: ("", "Zoë, for the 2026 analysis … €", "x" * 400),
}
ILLEGAL = {
    n.Site: ("", "1A", "T1-A", "T1.A", "T1 A", "A" * 65, "T1_A\n", "Ä", "_A", "..", "T1_A/x"),
    n.Lfn: (
        "",
        "/",
        "store/data/x",  # not absolute
        "./x",
        "/store/../etc/passwd",
        "/store/./x",
        "/..",
        "/store/.hidden",
        "/.t2g-part",
        "/store/-rf",  # looks like an option
        "/store/+x",
        "/store/@x",  # a file of arguments
        "/store/=x",
        "/store/,x",
        "/store/k=~root",  # a shell puts a home directory there
        "/store/100%",
        "/store/a:b",
        "/store/a&b",
        "/store/a'b",
        "/store/{a,b}",
        "/store/x*",
        "/store/.t2g-0123456789abcdef-0.part",
        "/store//x",
        "/store/x/",
        "/store/a b",
        "/store/ä",
        "/store/ⅷ",  # a digit, not an ASCII one
        "/store/x\n",
        "/store/x\x00",
        "/store/x\x1b[31m",
        "/store/%2e%2e/x",
        "/store/x?y=1",
        "/store/x#1",
        "/store/x\\y",
        "/store/~x",
        "/store/$HOME",
        "/store/x;rm",
        "file:///store/x",
        "root://host//store/x",
        "https://host/store/x",
        "/store/https://host/x",
        "/" + "a" * 1024,
    ),
    n.Dataset: ("/a/b", "/a/b/c/d", "a/b/c", "/a/b/", "/a/b/c#1", "/a/../c", "/a/b/c\n", "/a/*/c"),
    n.Block: ("/a/b/c", "/a/b/c#", "/a/b/c#-1", "/a/b/c#1#2", "/a/b#1", "/a/b/c#" + "1" * 65, "/a/b/c#1/2"),
    n.IntentId: ("", UUID, f"T1_A.{UUID.upper()}", f"T1_A.{UUID}.0.0", f"T1-A.{UUID}", f"T1_A.{UUID}\n", "T1_A.1"),
    n.ManifestId: (
        f"T1_A.{UUID}",
        f"T1_A.{UUID}.0",
        f"T1_A.{UUID}.00.0",
        f"T1_A.{UUID}.0.01",
        f"T1_A.{UUID}.-1.0",
        f"T1_A.{UUID}.0.1000000000",
        f"T1_A.{UUID}.0.0.0",
        f"T1_A.{UUID}.٣.0",
    ),
    n.Adler32: ("", "1", "0000000", "000000001", "DEADBEEF", "0x000001", "deadbee ", "deadbeeg"),
    n.Text: (
        "a\nb",
        "a\tb",
        "\x00",
        "\x1b[2J",
        "\x7f",
        "\x9b31m",
        "\u202egnp.exe",
        "\u2066x",
        "\u200fx",
        "\u061cx",
        "\u2028",
        "\ud800",
        "\ufeffx",
        "x" * 401,
    ),
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in LEGAL.items() for text in texts])
def test_legal_names_stay_the_same_text(kind: type[n._Name], text: str) -> None:
    name = kind(text)
    assert name == text
    assert hash(name) == hash(text)
    assert kind(name) is name
    assert type(pickle.loads(pickle.dumps(name))) is kind
    assert type(copy.deepcopy(name)) is kind


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in ILLEGAL.items() for text in texts])
def test_illegal_names_are_refused_in_one_printable_line(kind: type[n._Name], text: str) -> None:
    with pytest.raises(InvalidName) as refusal:
        kind(text)
    line = str(refusal.value)
    assert isinstance(refusal.value, UsageError)
    assert line.isprintable(), "a refusal repeats no control character"
    assert len(line) < 400, "and is no wall of text, whatever was given"
    assert "; use " in line, "and says what to do"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("value", [None, 5, b"/store/x", ["/store/x"]])
def test_only_text_is_a_name(kind: type[n._Name], value: object) -> None:
    with pytest.raises(InvalidName):
        kind(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ALL)
@given(text=st.text(max_size=60))
def test_any_text_is_parsed_or_refused(kind: type[n._Name], text: str) -> None:
    try:
        name = kind(text)
    except InvalidName:
        return
    assert name == text
    assert name.isprintable() or kind is n.Text


@given(st.text(alphabet="/.-_a0~=+@,%# \n", max_size=12))
def test_a_legal_lfn_is_safe_below_any_root(text: str) -> None:
    try:
        name = n.Lfn(text)
    except InvalidName:
        return
    for segment in name[1:].split("/"):
        assert segment
        assert segment[0].isalnum() or segment[0] == "_"
        assert "=~" not in segment
        assert shlex.split(segment) == [segment]
        assert quote(segment, safe="._=+@,~-") == segment
        assert segment.isascii()
        assert segment not in (".", "..")
    assert name.startswith("/")


@given(st.text(max_size=400))
def test_legal_text_holds_nothing_that_moves_a_cursor_or_turns_a_line(text: str) -> None:
    try:
        name = n.Text(text)
    except InvalidName:
        return
    name.encode()  # what a log can carry
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", name)


@given(st.text(max_size=300), st.integers(5, 100))
def test_shown_text_is_printable_and_short(text: str, chars: int) -> None:
    safe = n.shown(text, chars)
    assert len(safe) <= chars + 1
    n.Text(safe)


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True), st.uuids(), st.integers(0), st.integers(0))
def test_ids_give_back_their_parts(site: str, uuid: object, source_no: int, no: int) -> None:
    intent = n.IntentId(f"{site}.{uuid}")
    assert intent.home == site
    manifest = n.ManifestId.of(intent, source_no % 10**9, no % 10**9)
    assert (manifest.intent, manifest.source_no, manifest.no) == (intent, source_no % 10**9, no % 10**9)
    assert type(manifest.intent) is n.IntentId
    assert type(intent.home) is n.Site


def test_a_block_knows_its_dataset() -> None:
    assert n.Block("/a/b/c#1").dataset == n.Dataset("/a/b/c")


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("/store/data/x.root", Kind.FILE, "/store/data/x.root"),
        ("/store/x/y", Kind.FILE, "/store/x/y"),  # three segments below /store are a file
        ("/a/b/c", Kind.DATASET, "/a/b/c"),
        ("/a/b/c#1", Kind.BLOCK, "/a/b/c#1"),
        ("/a/b", Kind.FILE, "/a/b"),
        ("/a/b/c/d", Kind.FILE, "/a/b/c/d"),
        ("file:/a/b/c", Kind.FILE, "/a/b/c"),
        ("dataset:/store/b/c", Kind.DATASET, "/store/b/c"),
        ("block:/a/b/c#1", Kind.BLOCK, "/a/b/c#1"),
    ],
)
def test_selectors_as_typed(text: str, kind: Kind, name: str) -> None:
    assert parse(text) == Selector(kind, name)


@pytest.mark.parametrize(
    "text", ["", "x", "/a/../c", "/a/b#1", "file:", "file:x", "dataset:/a/b", "block:/a/b/c", "https://h/a"]
)
def test_selectors_that_name_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        parse(text)


@pytest.mark.parametrize(("kind", "name"), [(Kind.FILE, "/a/b/c#1"), (Kind.BLOCK, "/a/b/c"), (Kind.DATASET, "/a")])
def test_a_selector_is_legal_for_its_kind(kind: Kind, name: str) -> None:
    with pytest.raises(InvalidName):
        Selector(kind, name)

"""State directories with odd names: brokers are told them as Java reads them, or they are refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import NeverWorks
from streams.federation import local
from streams.federation.broker import write_properties


def as_java_reads(line: str) -> tuple[str, str]:
    """Key and value by the rules of java.util.Properties, of one line."""
    key, _, rest = line.partition("=")
    units, at = bytearray(), 0
    while at < len(rest):
        if rest[at] == "\\" and rest[at + 1] == "u":
            units += int(rest[at + 2 : at + 6], 16).to_bytes(2, "big")
            at += 6
            continue
        at += rest[at] == "\\"
        units += ord(rest[at]).to_bytes(2, "big")
        at += 1
    return key, units.decode("utf-16-be")


@pytest.mark.parametrize("value", ["/a b/ä", " /x", "/数/\U0001f600", "a\\b", "/plain", "#!=:", "a=b c"])
def test_properties_say_what_java_reads(tmp_path: Path, value: str) -> None:
    write_properties(tmp_path / "x.properties", {"log.dirs": value, "next": "1"})
    first, second = (tmp_path / "x.properties").read_bytes().decode("ascii").splitlines()
    assert as_java_reads(first) == ("log.dirs", value)
    assert second == "next=1"


@pytest.mark.parametrize("name", ["a,b", "a:b", "a\nb", "a\udce4b"])
def test_a_path_that_no_broker_can_have_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    for state, cache in ((tmp_path / name, tmp_path / "cache"), (tmp_path / "state", tmp_path / name)):
        with pytest.raises(NeverWorks, match="a path that brokers cannot have"):
            local.up(state, cache)
    assert list(tmp_path.iterdir()) == []

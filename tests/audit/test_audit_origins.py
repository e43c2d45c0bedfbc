"""Origins read without the gate: the same as by it, of whatever bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams import wire
from streams.auditing.origins import number_of, origin_of
from streams.core import records as m
from streams.errors import WireError
from streams.wire import origin_bytes
from streams.wire.origin_bytes import HEADS_MAX
from tests.audit.history import A, B, C

ORIGINS = st.builds(
    m.Origin,
    st.sampled_from([A, B, C]),
    st.sampled_from(["worker-0", "w" * 64, "plane_1"]),
    st.sampled_from(["x", "y" * 64]),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
)


def told_of(framed: bytes) -> m.Origin | None:
    """The origin; its number is the same by the shorter way, whoever was the writer before."""
    found, numbered = origin_of([(wire.ORIGIN, framed)]), number_of([(wire.ORIGIN, framed)])
    assert numbered == (None if found is None else (found.site, found.incarnation, found.seq))
    assert numbered == number_of([(wire.ORIGIN, framed)])
    return found


def by_the_gate(framed: bytes) -> m.Origin | None:
    try:
        return wire.decode_value(m.Origin, framed)
    except WireError:
        return None


@given(ORIGINS, ORIGINS)
def test_an_origin_is_what_the_gate_says(one: m.Origin, other: m.Origin) -> None:
    for origin in (one, other, one):
        assert origin_of([("other", b""), (wire.ORIGIN, wire.encode(origin))]) == origin
        assert told_of(wire.encode(origin)) == origin


@given(ORIGINS, st.integers(0, 200), st.binary(max_size=3), st.booleans())
def test_bytes_that_are_no_origin_are_none(origin: m.Origin, at: int, more: bytes, cut: bool) -> None:
    framed = wire.encode(origin)
    assert origin_of([(wire.ORIGIN, framed)]) == origin, "its head is known now"
    hurt = framed[:at] + more + (framed[at:] if not cut else framed[at + 1 :])
    assert told_of(hurt) == by_the_gate(hurt)


def test_numbers_that_are_longer_than_need_be_or_negative_go_through_the_gate() -> None:
    framed = wire.encode(m.Origin(A, "worker-0", "x", 1, 1))
    assert told_of(framed) is not None
    for at_ms in (0, 63, 64, 1 << 20, 1_700_000_000_000, (1 << 63) - 1):
        assert told_of(wire.encode(m.Origin(A, "worker-0", "x", at_ms, at_ms))) is not None
    assert origin_of([(wire.ORIGIN, framed)]) is not None
    for tail in (b"\x82\x00\x02", b"\x02\x82\x00", b"\x01\x02", b"\x02\x01", b"\xff" * 10 + b"\x01\x02", b"\x02\x80"):
        hurt = framed[:-2] + tail
        assert told_of(hurt) == by_the_gate(hurt)


def test_writers_are_forgotten_when_there_are_too_many() -> None:
    for number in range(HEADS_MAX + 10):
        origin = m.Origin(A, "worker-0", f"incarnation-{number}", 3, 4)
        assert origin_of([(wire.ORIGIN, wire.encode(origin))]) == origin
    assert len(origin_bytes._heads) <= HEADS_MAX


def test_no_header_no_origin() -> None:
    assert origin_of([]) is None
    assert origin_of([(wire.ORIGIN, None)]) is None
    assert number_of([]) is number_of([(wire.ORIGIN, None)]) is None

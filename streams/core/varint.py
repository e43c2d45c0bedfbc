"""Avro's whole numbers: zigzag, seven bits a byte, the least first. Pure."""

from __future__ import annotations


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number's zigzag as it stands, and the place behind it. IndexError where it is cut, ValueError over 64 bits."""
    n = shift = 0
    while True:
        byte = raw[at]
        at += 1
        n |= (byte & 0x7F) << shift
        if byte < 128:
            return n, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of over 64 bits")


def packed(number: int) -> bytes:
    """A number ≥ 0."""
    rest, out = number << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)

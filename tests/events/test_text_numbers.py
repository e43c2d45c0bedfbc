"""Whether a column's texts are the doubles they were read as: the quick way says what the slow one says of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events.formats.text.numbers import all_doubles, is_double

DIGITS = st.text("0123456789", min_size=1, max_size=22)
TAILS = st.sampled_from(["9999999999999999", "99999999999999999", "00000000000000001", "50000000000000000"])
PLAIN = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e17, max_value=1e17).map(repr),
    st.builds("{:.{}f}".format, st.floats(-1e9, 1e9), st.integers(1, 20)),
    st.builds("{}.{}".format, st.integers(-(10**6), 10**6), st.one_of(DIGITS, TAILS)),
)
WRITTEN = st.one_of(
    PLAIN,
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.builds("{:.{}e}".format, st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 19)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(WRITTEN, min_size=1, max_size=8))
def test_a_column_is_doubles_if_each_of_its_texts_is(texts: list[str]) -> None:
    array = pa.array(texts)
    values = np.array([float(text) for text in texts])
    lengths = np.array([len(text) for text in texts], dtype=np.int32)
    plain = not any("e" in text for text in texts)
    assert all_doubles(array, values, lengths, plain=plain) == all(map(is_double, texts))


def test_each_of_many_beside_numbers_that_are() -> None:
    """At any place of a long column, in the chunk it is looked at and not in another's."""
    good = [f"{value:.17g}" for value in np.random.default_rng(1).normal(size=20_000)]
    for at in (0, 8_191, 8_192, 19_999):
        texts = [*good[:at], "0.12345678901234567890123", *good[at + 1 :]]
        for column, kept in ((good, True), (texts, False)):
            lengths = np.array([len(text) for text in column], dtype=np.int32)
            values = np.array([float(text) for text in column])
            plain = not any("e" in text for text in column)
            assert all_doubles(pa.array(column), values, lengths, plain=plain) == kept

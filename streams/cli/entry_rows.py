"""Entries as lines of JSON: a batch as rows, and what JSON has no word for."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from streams.errors import NeverWorks


def need_packages(what: str) -> None:
    """NeverWorks where one is missing that `what` needs."""
    for package in ("pyarrow", "uproot", "awkward"):
        if find_spec(package) is None:
            raise NeverWorks(f"{what} {package}", next="install transfer2go with its extra: [events]")


def rows_of(batch: Any) -> list[dict[str, Any]]:
    """The entries of a batch; times that Python has no form for, as beyond the year 9999, as text."""
    try:
        return list(batch.to_pylist())
    except (OverflowError, ValueError):
        from streams.events.columns import times_as_text

        return list(times_as_text(batch).to_pylist())


def worded(value: Any) -> Any:
    """What JSON has no form for."""
    return value.hex() if isinstance(value, bytes) else str(value)

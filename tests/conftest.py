"""The order of a run, and what of it must stay in one process.

In order: the quick first, then what needs brokers of its own, then what shares the session's federation, what changes
that very last. In two processes (`make test`) each has a federation: what moves data in one, what breaks things in the
other. Both are longer than anything else and begin at once; who is done takes of what is left, test by test, and its
federation goes down meanwhile (tests/sites/conftest.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FAULTS = (
    "test_bad_input",
    "test_cache_rules",
    "test_full_tables",
    "test_killed",
    "test_s3",
    "test_third_site",
    "test_workers",
)
"""Modules of tests/sites that have a federation of their own in two processes: half of the time. Fewer tests than the
others', so that one process alone comes to them last."""
LINES_MAX = 600
"""Of a module. Many lines are a question, no fault, and no reason to cut one idea in two."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)
    for item in items:
        if item.get_closest_marker("sites") is not None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("sites") is None:
        return 0
    if not _shares_federation(item):
        return 1
    return 3 if item.get_closest_marker("changes_federation") else 2


def _group(item: pytest.Item) -> str:
    """Two federations a session (one, if it is kept), and one broker a module."""
    if not _shares_federation(item):
        return item.path.stem
    return "faults" if item.path.stem in FAULTS and "T2G_TEST_STATE" not in os.environ else "federation"


def _shares_federation(item: pytest.Item) -> bool:
    return "federation" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names modules of the product that are longer: a question (more than one idea?), and no failure."""
    root = Path(__file__).parents[1]
    paths = [path for top in ("agents", "schemas", "streams") for path in sorted((root / top).rglob("*.py"))]
    for path in paths:
        if (lines := len(path.read_text().splitlines())) > LINES_MAX:
            terminalreporter.write_line(f"{path.relative_to(root)} has {lines} lines: more than one idea?")

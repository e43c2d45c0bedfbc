"""The order of a run, and what of it must stay in one process.

In order: the quick first, then what needs real brokers, what changes their federation very last. In two processes
(`make test`): one begins with the session's federation, the other with the brokers of single modules and then the rest;
who is done first takes of what is left.
"""

from __future__ import annotations

from pathlib import Path

import pytest

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
    return 2 if item.get_closest_marker("changes_federation") else 1


def _group(item: pytest.Item) -> str:
    """One federation a session, and one broker a module."""
    return "federation" if "federation" in getattr(item, "fixturenames", ()) else item.path.stem


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names modules of the product that are longer: a question (more than one idea?), and no failure."""
    root = Path(__file__).parents[1]
    paths = [path for top in ("agents", "schemas", "streams") for path in sorted((root / top).rglob("*.py"))]
    for path in paths:
        if (lines := len(path.read_text().splitlines())) > LINES_MAX:
            terminalreporter.write_line(f"{path.relative_to(root)} has {lines} lines: more than one idea?")

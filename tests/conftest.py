"""The order of a run, and what of it must stay in one process.

In order: the quick first, then what needs real brokers, what changes their federation very last. In two processes
(`make test`): one begins with the session's federation, the other with the brokers of single modules and then the rest;
who is done first takes of what is left.
"""

from __future__ import annotations

import pytest


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

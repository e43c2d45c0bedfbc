"""The order of a run: the quick first, then what needs real brokers, what changes their federation very last."""

from __future__ import annotations

import pytest


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("sites") is None:
        return 0
    return 2 if item.get_closest_marker("changes_federation") else 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)

"""Fixtures of the views: a log on librdkafka's mock cluster, and settings of T1_A that point to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.core import topics
from streams.settings import Settings
from tests.views.journal import B, Journal, settings_for


@pytest.fixture
def journal() -> Iterator[Journal]:
    found = Journal()
    found.touch(*(n for base in topics.TO_EVERY_PEER for n in (base, topics.remote(B, base))))
    yield found
    found.flush()


@pytest.fixture
def settings(journal: Journal, tmp_path: Path) -> Settings:
    return settings_for(journal.bootstrap, tmp_path)

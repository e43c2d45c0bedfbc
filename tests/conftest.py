"""The order of a run, and what of it must stay in one process.

In one process: the quick first, then what needs brokers of its own, then what shares the session's federation, what
changes that very last. In three processes (`make test`) two have a federation: what moves data in one, what breaks
things in the other. Both take longest, so they begin, and wait a third of their time: the third process has what needs
brokers of its own, and then the quick, of which everybody takes who is done. A federation goes down behind its last
test (tests/sites/conftest.py).
"""

from __future__ import annotations

import gc
import os
from functools import cache
from pathlib import Path

import pytest
import structlog

pytest.register_assert_rewrite("tests.storage.contract")  # tests of planes use it, too
FAULTS = (
    "test_dialled_doors",
    "test_bad_input",
    "test_cache_rules",
    "test_doors",
    "test_full_tables",
    "test_killed",
    "test_many_sites",
    "test_workers",
)
"""Modules of tests/sites that have a federation of their own in two processes: half of the time. Fewer tests than the
others', so that one process alone comes to them last. In this order: where a site is to have no door, planes that were
killed before count as open doors until 90 s after their last word.
"""
ALONE = ("test_federation_alone", "test_upgrade")
"""Modules of tests/sites that start federations of their own."""
ORDER = ("federation", "faults", *ALONE)
"""Of groups, in several processes: the longest first."""
LINES_MAX = 600
"""Of a module. Many lines are a question, no fault, and no reason to cut one idea in two."""


def pytest_configure() -> None:
    """Tracebacks without the values of locals, which structlog shows by default: a simulated site's take a second.

    It is the renderer of the defaults, which `structlog.reset_defaults` keeps.
    """
    structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka's mock broker answers a waiting fetch when its time is over, not when something comes."""
    monkeypatch.setattr("streams.views.view._IDLE_MS", 100)
    monkeypatch.setattr("streams.planes.carriers.log.FETCH_WAIT_MS", 500)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)


def pytest_collection_finish() -> None:
    """What was collected stays to the end. Looking through it for garbage was a fifth of a simulated history."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Groups by module: xdist's own, by a mark, writes a test's id, and pytest 9.2 reads another (xdist 3.8)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


def group_of(nodeid: str) -> str:
    """What runs in one process, in order: a session's federation, a module's broker; anything else goes alone."""
    path = Path(nodeid.partition("::")[0])
    if not _needs_broker(path):
        return nodeid
    if path.parent.name != "sites" or path.stem in ALONE:
        return path.stem
    return "faults" if path.stem in FAULTS and "T2G_TEST_STATE" not in os.environ else "federation"


@cache
def _needs_broker(path: Path) -> bool:
    return "mark.sites" in (Path(__file__).parents[1] / path).read_text()


def _rank(item: pytest.Item) -> tuple[int, bool, int]:
    quick = item.get_closest_marker("sites") is None
    last = item.get_closest_marker("changes_federation") is not None
    turn = FAULTS.index(item.path.stem) if item.path.stem in FAULTS else len(FAULTS)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (0 if quick else 1 + _shares_federation(item)), last, turn
    return ORDER.index(group) if (group := group_of(item.nodeid)) in ORDER else len(ORDER) + quick, last, turn


def _shares_federation(item: pytest.Item) -> bool:
    return "federation" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names modules of the product that are longer: a question (more than one idea?), and no failure."""
    root = Path(__file__).parents[1]
    paths = [path for top in ("agents", "schemas", "streams") for path in sorted((root / top).rglob("*.py"))]
    for path in paths:
        if (lines := len(path.read_text().splitlines())) > LINES_MAX:
            terminalreporter.write_line(f"{path.relative_to(root)} has {lines} lines: more than one idea?")

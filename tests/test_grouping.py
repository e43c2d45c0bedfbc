"""What the grouping of tests by process names, exists; what needs a broker is in a group."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ALONE, FAULTS, group_of

TESTS = Path(__file__).parent


@pytest.mark.parametrize("name", [*FAULTS, *ALONE])
def test_a_module_that_is_named_exists(name: str) -> None:
    assert (TESTS / "sites" / f"{name}.py").exists()


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/sites/test_killed.py::test_broker[T1_A]", "faults"),
        ("tests/sites/test_events.py::test_x", "federation"),
        ("tests/sites/test_upgrade.py::test_x", "test_upgrade"),
        ("tests/kafka/test_broker_faults.py::test_x", "test_broker_faults"),
        ("tests/core/test_credit.py::test_x", "tests/core/test_credit.py::test_x"),
    ],
)
def test_groups(nodeid: str, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("T2G_TEST_STATE", raising=False)
    assert group_of(nodeid) == group

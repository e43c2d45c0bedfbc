"""One federation of two sites a process: real brokers, MirrorMaker 2, workers. Up at first use, purged after the last.

T2G_TEST_STATE=DIR     a federation kept there is found, or started and left running (for writing tests)
T2G_TEST_BROKERS=containers   the brokers come from testcontainers (containers.py)
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streams.cli import root
from streams.federation import local
from streams.settings import load_settings
from tests.conftest import group_of
from tests.sites.rig import A, B, Rig, Run, Spot, until

CREDIT_BYTES = 8 << 20
"""Little, as requests are: a file of some 30 MB takes a dozen, and a kill hits its middle."""
RUNNING = pytest.StashKey[contextlib.ExitStack]()
_SPOTS = count()
POLICIES = {
    "T2G_POLICY_LEASE_S": "8",
    "T2G_POLICY_UNDECIDED_S": "6",
    "T2G_POLICY_REPORT_S": "0.3",
    "T2G_POLICY_REQUEST_BYTES": str(2 << 20),
    "T2G_POLICY_DOOR_BYTES_MIN": str(200_000_000),  # what tests send otherwise goes by the log
    "T2G_POLICY_DOOR_REQUEST_BYTES": str(64 << 20),
}
_REAPER = """
import sys
from pathlib import Path
from streams.federation import local
sys.stdin.read()
local.down(Path(sys.argv[1]), purge=True)
"""


@pytest.fixture(scope="session")
def federation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The federation of this process. It is down before the session ends; see `pytest_runtest_teardown`."""
    kept = os.environ.get("T2G_TEST_STATE")
    _alone(tmp_path_factory)
    state = Path(kept) if kept else tmp_path_factory.mktemp("federation")
    reaper = None if kept else _watch_over(state)
    rig = Rig(state)
    with contextlib.ExitStack() as running:
        request.session.stash[RUNNING] = running
        if reaper is not None and reaper.stdin is not None:
            running.callback(reaper.stdin.close)
        running.callback(rig.close)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in POLICIES.items():
                patch.setenv(name, value)
            _up(state)
        yield rig
    assert reaper is None or reaper.wait(120) == 0, "the federation could not be taken down"
    for supervisor in local._supervisors if reaper is not None else ():
        supervisor.wait(30)  # another process ended it; this one is its parent


def _alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No other process of this run has a federation for the same tests: that they were grouped is seen here."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        group = group_of(os.environ["PYTEST_CURRENT_TEST"])
        (tmp_path_factory.getbasetemp().parent / f"federation-of-{group}").touch(exist_ok=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Has the federation taken down behind its last test, while others go on: idle it takes a fifth of a core.

    All tests of a process that use it come one after the other.
    """
    yield
    if "federation" not in getattr(nextitem, "fixturenames", ()) and RUNNING in item.session.stash:
        item.session.stash[RUNNING].close()


def _up(state: Path) -> None:
    cache = load_settings(need_federation=False).cache
    if os.environ.get("T2G_TEST_BROKERS") == "containers":
        from tests.sites import containers

        containers.up(state, cache, (A, B), CREDIT_BYTES)
        return
    local.up(state, cache, (A, B), credit_bytes=CREDIT_BYTES, on_step=lambda step: print(f"federation: {step}"))


def _watch_over(state: Path) -> subprocess.Popen[bytes]:
    """Takes the federation down and removes it when its pipe is closed, also by this process being killed."""
    return subprocess.Popen([sys.executable, "-c", _REAPER, str(state)], stdin=subprocess.PIPE, start_new_session=True)


@pytest.fixture
def rig(federation: Rig) -> Rig:
    """The federation, with both its sites well: what an earlier test broke is waited for."""
    until(lambda: federation.record.ready, "the federation is ready")
    until(lambda: all(p.state == "ready" and p.alive for p in federation.record.parts), "every part is ready")
    return federation


@pytest.fixture
def spot(request: pytest.FixtureRequest) -> Spot:
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[:60]
    return Spot(f"{name}-{os.getpid()}-{next(_SPOTS)}")


@pytest.fixture
def run(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with the federation's state directory, in an empty one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2G_STATE", str(rig.state))

    def invoke(*args: object) -> Result:
        result = CliRunner().invoke(root, [str(arg) for arg in args])
        assert "Traceback" not in result.output
        return result

    return invoke

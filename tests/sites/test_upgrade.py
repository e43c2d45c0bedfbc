"""Two sites, one still at the release before: upgraded one after the other, nothing is lost and every intent ends.

Files go both ways: of one way the source is upgraded first, of the other the destination.

The release before is the commit OLD of this repository, with its own supervisor, workers and client. The order of an
upgrade, as docs/USING.md gives it: one site's topics and workers; every site's topics, and new mirrors; the other
site's workers. What the older site refused meanwhile is requeued at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.cli import root
from streams.core import topics
from streams.core.names import IntentId, Site
from streams.federation import local, plan
from streams.federation.process import RunningPart, stop
from streams.federation.supervisor import is_healthy, worker_environment
from streams.kafka import admin
from streams.settings import load_settings
from tests.sites.rig import A, B, Files, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
OLD = "ff943492f0a4d5b68bb26c8fef162203e5420ee6"
WORKER = [sys.executable, "-m", "faust", "-A", "agents", "worker", "-l", "info"]
UP = "local.up(state, load_settings(need_federation=False).cache, ('T1_A', 'T2_B'))"
PUBLISH = """
client = TransferClient(load_settings(environ={}, files=[], state=str(state), site=Site(sys.argv[2])), requester='old')
handle = client.publish(sys.argv[3:4], sys.argv[4:5])
if sys.argv[5:]:
    assert handle.wait(60).done
client.close()
print(handle.id)
"""
REGISTER = """
from streams.core.names import Block
from streams.kafka.publish import Publisher
from streams.registration import register
settings = load_settings(environ={}, files=[], state=str(state), site=Site(sys.argv[2]))
with Publisher(settings, settings.site, 'old', 'producer') as publisher:
    assert register(settings, publisher, sys.argv[4:], Block(sys.argv[3])).files == len(sys.argv[4:])
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the release before."""
    folder = tmp_path_factory.mktemp("old")
    archived = subprocess.run(
        ["git", "archive", "--format=zip", "-o", str(folder / "old.zip"), OLD],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archived.returncode:
        pytest.skip(f"this clone has no commit {OLD[:7]}: {archived.stderr.decode().strip()}")
    with zipfile.ZipFile(folder / "old.zip") as archive:
        archive.extractall(folder / "tree")
    return folder / "tree"


class Upgrade:
    """A federation whose parts run at either release."""

    def __init__(self, old: Path, state: Path) -> None:
        self.old, self.state, self.rig = old, state, Rig(state)

    def by_old(self, code: str, *words: str) -> str:
        """Runs code of the release before; what it prints."""
        lines = [
            "import sys; from pathlib import Path; state = Path(sys.argv[1])",
            "from streams.federation import local",
            "from streams.settings import load_settings",
            "from streams.producer import TransferClient",
            "from streams.core.names import Site",
            code,
        ]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines), str(self.state), *words],
            cwd=self.old,
            env=os.environ | {"PYTHONPATH": str(self.old)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    def publish_old(self, home: Site, block: str, to: Site, *then: str) -> str:
        return self.by_old(PUBLISH, home, block, to, *then)

    def register_old(self, site: Site, block: str, files: Files) -> None:
        """What a producer of a later release says of replicas the older worker would refuse until it is upgraded."""
        self.by_old(REGISTER, site, block, *map(str, self.rig.write(files, site)))

    def set_workers(self, site: Site, workers: int, *, by_old: bool) -> None:
        if by_old:
            self.by_old(f"local.set_workers(state, Site('{site}'), {workers})")
        else:
            local.set_workers(self.state, site, workers)

    @contextmanager
    def worker(self, site: Site, tree: Path) -> Iterator[None]:
        """A worker of a release for a site whose federation runs none; started again when it ends, as a supervisor."""
        site_plan = next(s for s in self.rig.record.sites if s.name == site)
        port = site_plan.worker_port(0)
        environment = worker_environment(self.state, site_plan, 0) | {"PYTHONPATH": str(tree)}
        command = ["env", "-C", str(tree), *WORKER]
        part = RunningPart(
            f"{site}-by-hand", command, lambda: environment, self.state / "logs" / f"{site}-by-hand.log", bool
        )
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                if part.popen is None or part.popen.poll() is not None:
                    part.start()
            stop([part])  # here, since a part dies with the thread that started it

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            until(lambda: is_healthy(port), f"the worker of {site} is ready")
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture
def upgrade(old: Path, tmp_path: Path) -> Iterator[Upgrade]:
    found = Upgrade(old, tmp_path / "state")
    try:
        yield found
    finally:
        found.rig.close()
        local.down(found.state, purge=True)


def test_sites_are_upgraded_one_after_the_other(upgrade: Upgrade, spot: Spot) -> None:
    first, second = A, B
    rig = upgrade.rig
    upgrade.by_old(UP)
    files = {
        (site, number): {
            spot.lfn(f"{site}/{number}/{name}.dat"): noise(size, (spot, site, number, name))
            for name, size in (("small", 900), ("big", 20_000_000))
        }
        for site in (A, B)
        for number in range(4)
    }
    for (site, number), of_block in files.items():
        upgrade.register_old(site, spot.block(f"{site[:2]}-{number}"), of_block)
    intents: list[str] = []

    def old_publishes(site: Site, number: int, *then: str) -> None:
        block = spot.block(f"{site[:2]}-{number}")
        intents.append(upgrade.publish_old(site, block, B if site == A else A, *then))

    def new_publishes(site: Site, number: int) -> None:
        intents.append(rig.publish([spot.block(f"{site[:2]}-{number}")], [B if site == A else A], home=site).id)

    for site in (A, B):
        old_publishes(site, 0, "wait")
    for site in (A, B):
        old_publishes(site, 1)

    upgrade.set_workers(first, 0, by_old=True)
    admin.provision(rig.settings(first), [first])
    with upgrade.worker(first, ROOT):
        new_publishes(first, 2)
        old_publishes(second, 2, "wait")

    upgrade.set_workers(second, 0, by_old=True)
    upgrade.by_old("local.down(state)")
    record = plan.read_record(upgrade.state)
    assert record is not None
    sites = tuple(replace(s, workers=1) if s.name == first else s for s in record.sites)
    plan.write_record(upgrade.state, replace(record, sites=sites))
    local.up(upgrade.state, load_settings(need_federation=False).cache, (A, B), workers=0)
    with ExitStack() as running:
        running.enter_context(upgrade.worker(second, upgrade.old))
        new_publishes(first, 3)
        old_publishes(second, 3, "wait")
    upgrade.set_workers(second, 1, by_old=False)

    for site in (A, B):
        for letter in list(rig.records(site, topics.DEAD_LETTERS)):
            requeue = ["dlq", "requeue", f"{letter.partition}:{letter.offset}", "--execute"]
            done = CliRunner().invoke(root, ["--state", str(upgrade.state), "--site", site, *requeue])
            assert done.exit_code == 0, done.output
    for intent in intents:
        rig.wait_done(rig.client(IntentId(intent).home).intent(intent))
    for (site, _), of_block in files.items():
        rig.assert_arrived(of_block, B if site == A else A)
    rig.audit()

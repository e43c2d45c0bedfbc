"""Bad input from end to end: each ends or waits with its reason in words, and the other items of the intent arrive."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from streams.client.producer import IntentHandle, Outcome
from streams.core import records as m
from streams.core.intent import State
from streams.core.names import IntentId, Site, Text
from streams.core.selectors import parse
from streams.errors import NotFound
from streams.federation import local
from tests.sites.blows import BIG_BYTES, caught, ear_at_destination
from tests.sites.rig import A, B, Files, Rig, Spot, noise, until
from tests.system_tools import tool

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]

NOT_DONE, REFUSED, PARTLY = 6, 7, 8


def _reasons(outcome: Outcome) -> dict[str, str]:
    """Item → why it did not arrive."""
    return {one.lfn: str(one.reason.text) for one in outcome.last.unfinished}


@contextmanager
def _damaged(rig: Rig, files: Files) -> Iterator[None]:
    """Puts A's files back behind a test, or each later test's audit would find them: they are registered."""
    try:
        yield
    finally:
        rig.write(files, at=A)


def test_items_that_cannot_arrive_fail_each_with_its_reason(rig: Rig, spot: Spot) -> None:
    """Gone, longer, shorter, rewritten, corrupted in place, and a name that another file has at B: the rest arrives."""
    names = ("good", "gone", "longer", "shorter", "rewritten", "corrupted", "taken", "there")
    files = {spot.lfn(f"{name}.dat"): noise(70_000, name) for name in names} | {spot.lfn("empty.dat"): b""}
    rig.register(files, spot.block())
    path = {name: rig.path(A, spot.lfn(f"{name}.dat")) for name in names}
    damaged = {lfn: content for lfn, content in files.items() if not lfn.endswith(("/taken.dat", "/there.dat"))}
    with _damaged(rig, damaged):
        path["gone"].unlink()
        path["longer"].write_bytes(path["longer"].read_bytes() + b"more")
        path["shorter"].write_bytes(path["shorter"].read_bytes()[:-1])
        path["rewritten"].write_bytes(noise(70_000, "other bytes of the same size"))
        before = path["corrupted"].stat()
        with path["corrupted"].open("r+b") as file:
            file.seek(12_345)
            file.write(b"a disk did this")
        os.utime(path["corrupted"], ns=(before.st_atime_ns, before.st_mtime_ns))
        other = noise(70_000, "what B has under that name")
        rig.write({spot.lfn("taken.dat"): other, spot.lfn("there.dat"): files[spot.lfn("there.dat")]}, at=B)

        outcome = rig.wait(rig.publish([spot.block()]))
    assert outcome.exit_code == PARTLY
    reasons = _reasons(outcome)
    expected = {
        "gone": "no such file",
        "longer": "grew from 70000 to 70004 bytes",
        "shorter": "shrank from 70000 to 69999 bytes",
        "rewritten": "was changed",
        "corrupted": "checksum differs",
        "taken": "a different file is already at the destination",
    }
    assert reasons.keys() == {spot.lfn(f"{name}.dat") for name in expected}
    for name, words in expected.items():
        assert words in reasons[spot.lfn(f"{name}.dat")], (name, reasons[spot.lfn(f"{name}.dat")])
    rig.assert_arrived({lfn: content for lfn, content in files.items() if lfn not in reasons})
    for name in expected.keys() - {"taken"}:
        assert not rig.path(B, spot.lfn(f"{name}.dat")).exists(), f"{name} stands under its final name"
    assert rig.path(B, spot.lfn("taken.dat")).read_bytes() == other, "what was there is untouched"
    rig.path(B, spot.lfn("taken.dat")).unlink()  # what nobody holds leaves B
    rig.audit()


@pytest.mark.parametrize("how", ["grows", "vanishes"])
def test_a_source_that_changes_while_it_is_read(rig: Rig, spot: Spot, how: str) -> None:
    """It fails in words or, where it was read before it vanished, arrives as registered; the other item arrives."""
    files = {spot.lfn("big.dat"): noise(BIG_BYTES, spot), spot.lfn("small.dat"): noise(300, spot)}
    rig.register(files, spot.block())
    big = rig.path(A, spot.lfn("big.dat"))
    with _damaged(rig, files), ear_at_destination(rig) as ear:
        with caught(rig, ear, lambda: rig.publish([spot.block()])) as blow:
            if how == "grows":
                with big.open("ab") as file:
                    file.write(b"more")
            else:
                big.unlink()
        outcome = rig.wait(blow.handle)
    reasons = _reasons(outcome)
    if reasons or how == "grows":
        assert outcome.exit_code == PARTLY
        assert reasons.keys() == {spot.lfn("big.dat")}
        assert ("grew" if how == "grows" else "no such file") in reasons[spot.lfn("big.dat")]
        assert not rig.path(B, spot.lfn("big.dat")).exists()
    rig.assert_arrived({lfn: content for lfn, content in files.items() if lfn not in reasons})
    rig.audit()


def _tiny_disk(path: str) -> str | None:
    """Mounts a file system of 4 MB there; why not, if it cannot be done."""
    done = subprocess.run(
        [tool("mount"), "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else f"no tmpfs can be mounted here: {done.stderr.strip()}"


def test_a_full_disk_at_the_destination(rig: Rig, spot: Spot) -> None:
    """Items that do not fit fail and say so; what fits on that disk, and what goes elsewhere, arrives."""
    files = {
        spot.lfn("disk/preallocated.dat"): noise(12_000_000, spot),
        spot.lfn("disk/written.dat"): noise(6_000_000, (spot, 1)),
        spot.lfn("disk/fits.dat"): noise(100_000, (spot, 2)),
        spot.lfn("elsewhere.dat"): noise(200_000, (spot, 3)),
    }
    rig.register(files, spot.block())
    disk = rig.path(B, spot.lfn("disk"))
    disk.mkdir(parents=True)
    if why := _tiny_disk(str(disk)):
        pytest.skip(why)
    try:
        outcome = rig.wait(rig.publish([spot.block()]))
        rig.assert_arrived({lfn: content for lfn, content in files.items() if lfn.endswith(("fits.dat", "where.dat"))})
    finally:
        subprocess.run([tool("umount"), "--lazy", str(disk)], check=True)
    # The audit looks for what B holds: it is on the real disk now.
    rig.write({spot.lfn("disk/fits.dat"): files[spot.lfn("disk/fits.dat")]}, at=B)
    assert outcome.exit_code == PARTLY
    reasons = _reasons(outcome)
    assert reasons.keys() == {spot.lfn("disk/preallocated.dat"), spot.lfn("disk/written.dat")}
    assert all("the disk is full" in why for why in reasons.values()), reasons
    rig.audit()


def _send(rig: Rig, spot: Spot, destination: str, source: Site | None = None) -> IntentHandle:
    """Publishes past the producer API, as another program might."""
    body = m.TransferIntent(
        IntentId(f"{A}.{uuid.uuid4()}"), Text("tests"), (parse(spot.block()),), (Site(destination),), source
    )
    rig.publisher(A).send(body)
    rig.publisher(A).flush(30)
    return rig.client().intent(body.intent)


def test_an_unknown_site_is_refused(rig: Rig, spot: Spot) -> None:
    """By the producer API at once, and by the home where a record got past it: as a destination and as a source."""
    rig.register({spot.lfn("one.dat"): b"one"}, spot.block())
    with pytest.raises(NotFound, match="no site T2_BB in this federation"):
        rig.publish([spot.block()], [Site("T2_BB")])
    with pytest.raises(NotFound, match="no site T9_Z in this federation"):
        rig.publish([spot.block()], source="T9_Z")
    for handle in (_send(rig, spot, "T9_Z"), _send(rig, spot, B, Site("T9_Z"))):
        outcome = rig.wait(handle)
        assert (outcome.state, outcome.exit_code) == (State.REFUSED, REFUSED)
        assert "no site T9_Z in this federation" in outcome.reason
    rig.audit()


def test_what_nobody_knows_is_refused_but_not_before_mirrors_had_time(rig: Rig, spot: Spot) -> None:
    """An unknown dataset is refused by name once `undecided_s` have passed; one that turns up till then is accepted."""
    undecided_s = float(os.environ.get("T2G_POLICY_UNDECIDED_S", "6"))
    began = time.monotonic()
    unknown = rig.publish([spot.dataset])
    late = Spot(f"{spot.name}-late")
    turns_up = rig.publish([late.block()])
    timer = threading.Timer(2.0, lambda: rig.register({late.lfn("one.dat"): b"late"}, late.block()))
    timer.start()
    rig.wait_done(turns_up)
    timer.join()
    outcome = rig.wait(unknown)
    assert time.monotonic() - began >= undecided_s
    assert (outcome.state, outcome.exit_code) == (State.REFUSED, REFUSED)
    assert spot.dataset in outcome.reason
    rig.assert_arrived({late.lfn("one.dat"): b"late"})
    rig.audit()


def test_a_cancelled_intent_keeps_what_arrived_and_drops_the_rest(rig: Rig, spot: Spot) -> None:
    """Cancelled in the middle of a file: it ends, the small item sealed before stays, no part and no name is left."""
    files = {spot.lfn("big.dat"): noise(BIG_BYTES, spot), spot.lfn("a.dat"): noise(300, spot)}
    rig.register(files, spot.block())
    with ear_at_destination(rig) as ear, caught(rig, ear, lambda: rig.publish([spot.block()])) as blow:
        ear.until(
            lambda w: isinstance(w, m.TransferProgress) and w.manifest.intent == blow.handle.id and w.sealed.size == 1,
            "the small item is sealed",
        )
        blow.handle.cancel()
        outcome = rig.wait(blow.handle)
    assert (outcome.state, outcome.exit_code) == (State.CANCELLED, PARTLY)
    assert "cancelled by tests" in outcome.reason
    assert (outcome.destinations[0].arrived, outcome.destinations[0].cancelled) == (1, 1)
    rig.assert_arrived({spot.lfn("a.dat"): files[spot.lfn("a.dat")]})
    assert not rig.path(B, spot.lfn("big.dat")).exists()
    rig.audit()


def test_a_changed_priority_reaches_the_transfer(rig: Rig, spot: Spot) -> None:
    """The home decides it, the destination's open transfer is told, and the file arrives."""
    files = {spot.lfn("big.dat"): noise(BIG_BYTES, spot)}
    rig.register(files, spot.block())
    with (
        ear_at_destination(rig) as ear,
        caught(rig, ear, lambda: rig.publish([spot.block()])) as blow,
    ):
        blow.handle.set_priority(9)
        _, told = ear.until(
            lambda w: isinstance(w, m.TransferDecided) and w.manifest.intent == blow.handle.id, "the transfer is told"
        )
        assert (told.verdict, told.priority, told.decision_no) == (m.Verdict.ACCEPTED, 9, 2)
    outcome = rig.wait_done(blow.handle)
    assert outcome.last.decision is not None
    assert outcome.last.decision.priority == 9
    rig.assert_arrived(files)
    rig.audit()


@pytest.fixture
def _source_back(federation: Rig) -> Iterator[None]:
    yield
    local.set_workers(federation.state, A, 1)


@pytest.mark.usefixtures("_source_back")
def test_a_source_that_is_down_is_waited_for(rig: Rig, spot: Spot) -> None:
    """Open transfers say whom they wait for, new intents stay open, a deadline ends one in words; back, all arrive."""
    files = {spot.lfn("big.dat"): noise(BIG_BYTES, spot)}
    later, never = Spot(f"{spot.name}-later"), Spot(f"{spot.name}-never")
    for other in (later, never):
        rig.register({other.lfn("one.dat"): noise(5000, other)}, other.block())
    rig.register(files, spot.block())
    until(lambda: rig.ask(B, f"/api/where?lfn={spot.lfn('big.dat')}"), "B knows the block")
    with ear_at_destination(rig) as ear, caught(rig, ear, lambda: rig.publish([spot.block()], home=B)) as blow:
        open_one = blow.handle
        local.set_workers(rig.state, A, 0)
        waiting = rig.publish([later.block()], home=B)
        dated = rig.publish([never.block()], home=B, deadline=datetime.now(UTC) + timedelta(seconds=3))

        def said() -> str:
            [there] = open_one.snapshot().destinations
            return next((str(r.waits_for) for r in there.open if "left requests" in r.waits_for), "")

        words = until(said, "the transfer says whom it waits for")
        assert f"{A} to answer request" in words
        ended = rig.wait(dated)
        assert (ended.state, ended.exit_code, ended.reason) == (State.CANCELLED, NOT_DONE, "its deadline passed")
        assert waiting.snapshot().state is State.ACTIVE
        assert not open_one.snapshot().ended
        local.set_workers(rig.state, A, 1)
        rig.wait_done(open_one)
        rig.wait_done(waiting)
    rig.assert_arrived(files)
    rig.assert_arrived({later.lfn("one.dat"): noise(5000, later)})
    assert not rig.path(B, never.lfn("one.dat")).exists()
    rig.audit()

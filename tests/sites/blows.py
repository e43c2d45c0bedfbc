"""A transfer struck in the middle: what is killed meanwhile, and what its outcome must be."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from streams.client.producer import IntentHandle
from streams.core import records as m
from streams.core import topics
from streams.core.channel import DOOR, LOG
from streams.federation import plan
from tests.sites.rig import A, B, Ear, NamesWatch, Rig, Spot, completions, noise

BIG_BYTES = 40_000_000
DOOR_BYTES = 260_000_000
"""Four requests by door, two of them under way at once."""
RECOVERY_S = 150.0


@dataclass
class Blow:
    """A transfer caught in the middle: what is on its way, and when it was struck (monotonic and epoch seconds)."""

    handle: IntentHandle
    ear: Ear
    synced: int
    at_s: float = field(default_factory=time.monotonic)
    epoch_s: float = field(default_factory=time.time)

    @classmethod
    def of(cls, handle: IntentHandle, ear: Ear) -> Blow:
        """As soon as some of it is synced."""
        _, progress = ear.until(lambda w: _of(w, handle) and w.verified.size > 300, "some of it is synced at B")
        return cls(handle, ear, progress.verified.size)

    def first_new_progress(self, after_epoch_s: float) -> float:
        """When (epoch) more was synced at B than before the blow, of what was heard after a moment."""
        at_s, _ = self.ear.until(
            lambda w: _of(w, self.handle) and w.verified.size > self.synced,
            "progress after the blow",
            RECOVERY_S,
            self.at_s + max(0.0, after_epoch_s - self.epoch_s),
        )
        return self.epoch_s + at_s - self.at_s


def _of(message: m.Message, handle: IntentHandle) -> bool:
    return isinstance(message, m.TransferProgress) and message.manifest.intent == handle.id


@contextmanager
def caught(rig: Rig, ear: Ear, publish: Callable[[], IntentHandle]) -> Iterator[Blow]:
    """A transfer by the log with a part of it synced at B and the rest not: inside, the plane of A stands still.

    The planes take turns to get there, and credit bounds what each does in its turn: however late this process gets
    its processor, it finds the middle of whatever is larger than the credit. `ear` is `ear_at_destination`'s.
    """
    source, destination = rig.plane_pid(f"{A}-worker-0"), rig.plane_pid(f"{B}-worker-0")

    def heard(at: Ear, kind: type) -> None:
        at.until(lambda w: isinstance(w, kind) and w.manifest.intent == handle.id, kind.__name__)

    with rig.ear(A, topics.CHUNK_EVENTS) as ear_at_source:
        try:
            os.kill(destination, signal.SIGSTOP)
            handle = publish()
            heard(ear, m.TransferPlanned)
            os.kill(source, signal.SIGSTOP)
            os.kill(destination, signal.SIGCONT)
            heard(ear, m.ChunksRequested)
            os.kill(destination, signal.SIGSTOP)
            os.kill(source, signal.SIGCONT)
            heard(ear_at_source, m.ChunksServed)
            os.kill(source, signal.SIGSTOP)
            os.kill(destination, signal.SIGCONT)
            yield Blow.of(handle, ear)
        finally:
            for plane in (source, destination):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(plane, signal.SIGCONT)


@contextmanager
def _caught_by_door(rig: Rig, ear: Ear, publish: Callable[[], IntentHandle]) -> Iterator[Blow]:
    """As `caught`. A door's credit is larger than the file: its plane runs for moments, until some is synced at B."""
    source = rig.plane_pid(f"{A}-worker-0")
    try:
        handle = publish()
        ear.until(lambda w: isinstance(w, m.ChunksRequested) and w.manifest.intent == handle.id, "it is asked for")
        for _ in range(100):
            os.kill(source, signal.SIGSTOP)
            time.sleep(0.2)  # the destination tells what it synced
            if any(_of(w, handle) and w.verified.size > 300 for w in ear.messages()):
                break
            os.kill(source, signal.SIGCONT)
            time.sleep(0.02)
        yield Blow.of(handle, ear)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(source, signal.SIGCONT)


def assert_by_door(rig: Rig, blow: Blow) -> None:
    """What was asked, was asked by door."""
    key = blow.handle.id
    asked = [r for r in rig.facts(B, topics.requests_to(A)) if r.manifest.intent == key]
    assert DOOR in {request.plane for request in asked}


def ear_at_destination(rig: Rig) -> Ear:
    return rig.ear(B, topics.TRANSFERS, topics.requests_to(A), topics.CHUNK_EVENTS)


@contextmanager
def struck(
    rig: Rig, spot: Spot, strike: Callable[[], object], big_bytes: int = BIG_BYTES, plane: str = LOG
) -> Iterator[Blow]:
    """Sends a big file and two small ones, strikes in the middle, and holds the outcome to what it must be."""
    files = {
        spot.lfn("big"): noise(big_bytes, spot),
        spot.lfn("z/small"): noise(300, spot),
        spot.lfn("zero"): b"",
    }
    rig.register(files, spot.block())
    big = rig.path(B, spot.lfn("big"))
    in_the_middle = caught if plane == LOG else _caught_by_door
    with (
        ear_at_destination(rig) as ear,
        NamesWatch({rig.path(B, lfn): content for lfn, content in files.items()}) as names,
    ):
        with in_the_middle(rig, ear, lambda: rig.publish([spot.block()])) as blow:
            strike()
            assert blow.synced < big_bytes
            assert not big.exists(), "the blow came too late: the file was there"
        yield blow
        rig.wait_done(blow.handle, RECOVERY_S)
        print(f"the whole file was there {time.monotonic() - blow.at_s:.1f} s after the kill")
    rig.assert_arrived(files)
    assert not names.wrong
    assert names.looks > 100
    said = completions(rig.facts(B, topics.COMPLETIONS, key=blow.handle.id), blow.handle.id)
    assert len(set(said)) == 1, "a completion said again is the same"
    rig.audit()


def told(name: str, blow: Blow, back: plan.FederationPart) -> None:
    """Prints how long the part took to come back, and the transfer to go on."""
    ready_s = time.time() - blow.epoch_s
    progress_s = blow.first_new_progress(back.created) - blow.epoch_s
    print(f"\n{name}: ready again {ready_s:.1f} s after the kill, more synced at {B} after {progress_s:.1f} s")

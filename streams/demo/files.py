"""The demo: real files registered at one site, asked for by the producer API, read back at another, audited."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from streams import wire
from streams.auditing.replaying import AuditReport, audit
from streams.client.intent_snapshot import Snapshot
from streams.client.producer import IntentHandle, Outcome, TransferClient
from streams.core import records as m
from streams.core.names import Block, Dataset, IntentId, Lfn, Site
from streams.core.topics import COMPLETIONS, remote
from streams.errors import NeverWorks, NotFound, PartlyDone, Temporary, TransferFailed
from streams.kafka.publish import Publisher, writer_of
from streams.kafka.replay import replay
from streams.registration.registering import Fault, register, verify
from streams.settings import Settings

SMALL_FILES = 500
BIG_BYTES = 1_000_000_000
SMALL_BIG_BYTES = 20_000_000
_SEED = 20260101
_BLOCK_BYTES = 8 << 20
_DISK_FACTOR = 4.5
"""A demo's disk: source, payload topic, its mirrored copy, destination; and some room for logs."""
_AUDIT_PATIENCE_S = 15.0
_LOOK_S = 0.1

Tell = Callable[[str], None]
Show = Callable[[Sequence[Snapshot]], None]


@dataclass(slots=True)
class Lot:
    """One block of the demo: what goes in, what came of it. `expected`: (LFN, bytes, adler32) as registered."""

    block: Block
    paths: list[str]
    prefix: str
    expected: list[tuple[Lfn, int, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    intent: IntentId | None = None
    outcome: Outcome | None = None
    seconds: float = 0.0
    whole: int = 0
    completions: int = 0

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self.expected)


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What happened. `wrong`: files that are not whole at the destination, with reasons."""

    source: Site
    destination: Site
    lots: tuple[Lot, ...]
    seconds: float
    wrong: tuple[str, ...]
    audit: AuditReport | None

    @property
    def exit_code(self) -> int:
        """0 all arrived, whole and audited · 8 some did · 6 none did · 7 refused · 5 still open · 1 audit not clean."""
        codes = {lot.outcome.exit_code for lot in self.lots if lot.outcome is not None}
        if Temporary.exit_code in codes:
            return Temporary.exit_code
        if codes == {NeverWorks.exit_code}:
            return NeverWorks.exit_code
        arrived = sum(lot.whole for lot in self.lots)
        if codes - {0} or self.wrong or any(lot.faults for lot in self.lots):
            return PartlyDone.exit_code if arrived else TransferFailed.exit_code
        return 0 if self.audit is None else self.audit.exit_code


def check_room(state: Path, paths: Sequence[str], *, small: bool) -> None:
    """Before anything starts: NotFound for a path that is not there, Temporary for a disk that cannot take the demo."""
    size = sum(size for path in paths for size in _sizes(path)) if paths else _big_bytes(small) + SMALL_FILES * 40_000
    place = next(p for p in (state, *state.parents) if p.is_dir())
    free, need = shutil.disk_usage(place).free, int(size * _DISK_FACTOR) + 500_000_000
    if free < need:
        raise Temporary(
            f"the disk has {free / 1e9:.1f} GB free, the demo needs about {need / 1e9:.1f} GB",
            where=str(place),
            next="free some, use --state on another disk, or --small",
        )


def _big_bytes(small: bool) -> int:
    return SMALL_BIG_BYTES if small else BIG_BYTES


def inputs(storage: Path, paths: Sequence[str], *, small: bool, tell: Tell) -> list[Lot]:
    """The user's files as one block; or two, made under `storage`: ROOT files with a big one, and many small files."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    prefix = f"/store/demo/{stamp}"
    if paths:
        return [Lot(Block(f"/Demo/Run{stamp}-v1/USER#files"), list(paths), f"{prefix}/files")]
    dataset = Dataset(f"/TTbar/Demo{stamp}-v1/NANOAOD")
    big = _big_bytes(small)
    tell(f"making {SMALL_FILES} small files and one of {big / 1e9:.3g} GB")
    own, many = storage / f"{prefix[1:]}/events", storage / f"{prefix[1:]}/small"
    try:
        with ThreadPoolExecutor(2) as pool:
            made = [pool.submit(_make_big, own / "generated.bin", big), pool.submit(_make_small, many, SMALL_FILES)]
            for one in made:
                one.result()
    except OSError as error:
        raise Temporary(f"the demo's files cannot be written: {error.strerror}", where=str(storage)) from error
    return [
        Lot(Block(f"{dataset}#events"), [*samples(), str(own / "generated.bin")], f"{prefix}/events"),
        Lot(Block(f"{dataset}#small"), [str(many)], f"{prefix}/small"),
    ]


def samples() -> list[str]:
    """The real ROOT files that come with transfer2go (origin and licence: samples/ORIGIN.md)."""
    folder = files("streams") / "samples"
    return sorted(str(one) for one in folder.iterdir() if one.name.endswith(".root"))


def _sizes(path: str) -> Iterator[int]:
    if os.path.isfile(path):
        yield os.path.getsize(path)
        return
    if not os.path.isdir(path):
        raise NotFound("no such file or directory", where=path, next="give the paths of files or directories to move")
    for top, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # gone by now, or a link in a circle: registering says what is refused
                if os.path.isfile(at := os.path.join(top, name)):
                    yield os.path.getsize(at)


def _make_big(path: Path, size: int) -> None:
    """Incompressible bytes that differ from block to block, the same in every run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = bytearray(random.Random(_SEED).randbytes(_BLOCK_BYTES))
    with path.open("wb") as out:
        for number, at in enumerate(range(0, size, _BLOCK_BYTES)):
            block[:8] = number.to_bytes(8, "big")
            out.write(block[: min(_BLOCK_BYTES, size - at)])


def _make_small(folder: Path, count: int) -> None:
    """Sizes from none to 64 KiB: an empty one, single bytes, and all that lies between."""
    chance = random.Random(_SEED)
    for number in range(count):
        place = folder / f"{number // 100:02d}"
        place.mkdir(parents=True, exist_ok=True)
        size = (0, 1, 100, 4096)[number] if number < 4 else chance.randrange(1, 65_537)
        (place / f"f{number:04d}.dat").write_bytes(chance.randbytes(size))


def enter(settings: Settings, lots: Sequence[Lot], tell: Tell) -> None:
    """Register every lot at `settings.here`; faults are told and kept. Raises when nothing could be registered."""
    with Publisher(settings, settings.here, writer_of("demo"), "cli") as publisher:
        for lot in lots:
            started = time.monotonic()
            done = register(settings, publisher, lot.paths, lot.block, lfn_prefix=lot.prefix, link=True)
            if done.stopped is not None:
                raise done.stopped
            lot.faults = list(done.faults)
            for fault in lot.faults[:10]:
                tell(f"refused: {fault}")
            if not done.files:
                raise TransferFailed("none of the files could be registered", where=str(lot.block))
            took = time.monotonic() - started
            what = f"{done.files:,} files, {done.bytes / 1e6:,.1f} MB as {lot.block}"
            tell(f"registered {what} at {settings.here} ({took:.1f} s)")
    _remember(settings, lots)


def _remember(settings: Settings, lots: Sequence[Lot]) -> None:
    """What the journals now say is there: the destination is held to that."""
    names = {str(lot.block): lot for lot in lots}
    for record in replay(settings, settings.here, ["replicas"]):
        heard = wire.decode(record.topic, record.key, record.value, record.headers, settings.here).message
        if isinstance(heard, m.FilesHeld) and heard.site == settings.here:
            for file in heard.files:
                if (lot := names.get(file.block)) is not None:
                    lot.expected.append((file.lfn, file.bytes, str(file.adler32)))


def move(home: Settings, destination: Site, lots: Sequence[Lot], show: Show, timeout_s: float) -> float:
    """Publish one intent per lot and follow all to their ends; the seconds it took."""
    started = time.monotonic()
    with TransferClient(home) as client:
        handles = [client.publish([lot.block], [destination], source=home.here) for lot in lots]
        for lot, handle in zip(lots, handles, strict=True):
            lot.intent = handle.id
        _follow(handles, lots, show, started, timeout_s)
    return time.monotonic() - started


def _follow(handles: Sequence[IntentHandle], lots: Sequence[Lot], show: Show, started: float, timeout_s: float) -> None:
    while True:
        latest = [handle.snapshot() for handle in handles]
        show(latest)
        now = time.monotonic()
        for lot, snapshot in zip(lots, latest, strict=True):
            if snapshot.ended and not lot.seconds:
                lot.seconds = now - started
        if all(snapshot.ended for snapshot in latest) or now - started > timeout_s:
            break
        time.sleep(_LOOK_S)
    for lot, handle in zip(lots, handles, strict=True):
        lot.outcome = handle.wait(0)
        lot.seconds = lot.seconds or time.monotonic() - started


def read_back(there: Settings, lots: Sequence[Lot]) -> list[str]:
    wrong: list[str] = []
    for lot in lots:
        for checked in verify(there, lot.expected):
            lot.whole += not checked.why
            if checked.why:
                wrong.append(f"{checked.lfn} {checked.why}")
    return wrong


def count_completions(home: Settings, destination: Site, lots: Sequence[Lot]) -> None:
    """How many completion records of each lot the home has in its mirrored copy."""
    for record in replay(home, home.here, [remote(destination, COMPLETIONS)]):
        heard = wire.decode(record.topic, record.key, record.value, record.headers, home.here).message
        if isinstance(heard, m.CompletionRecord):
            for lot in lots:
                lot.completions += heard.intent == lot.intent


def judge(settings: Settings, tell: Tell) -> AuditReport:
    """The audit of all sites; asked again for a while as long as something only waits for a mirror or a commit."""
    until = time.monotonic() + _AUDIT_PATIENCE_S
    while True:
        report = audit(settings, storage=False)
        if not report.judgement.waiting or time.monotonic() > until:
            return report
        tell("waiting for mirrors and commits to settle")
        time.sleep(1.0)

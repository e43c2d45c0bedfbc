"""One small and one rich value of every record, as fixtures. No checks here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import Ranges
from streams.core.selectors import Kind, Selector

A, B, C = Site("T1_A"), Site("T2_B"), Site("T3_C")
INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
MANIFEST = ManifestId.of(INTENT, 0, 0)
DATASET = Dataset("/SingleMuon/Run2026A-v1/NANOAOD")
BLOCK = Block(f"{DATASET}#0001")
LFN = Lfn("/store/data/Run2026A/SingleMuon/NANOAOD/v1/000/0001.root")
SHA256 = "0123456789abcdef" * 4
REASON = m.Reason(m.Scope.SOURCE, m.FailureClass.DATA_BAD, "read", Text("crc32c differs: fetched again … 3×"))

WHOLE = m.Item(
    LFN, DATASET, BLOCK, LFN, "", 4096, 4096, Adler32("00ab12cd"), "4096,1700000000000000001,77", B, None, (A, C)
)
CUT = "entries:Events[0:100]{nMuon}"
PART = m.Item(LFN, DATASET, BLOCK, Lfn(f"{LFN}.0123456789ab.parquet"), CUT, 100, 999, None, "v", B)
OTHER_PART = replace(PART, target=Lfn(f"{LFN}.ba9876543210.parquet"), selection="entries:Events[100:200]", holder=C)
NOBODYS = m.Item(Lfn("/store/gone"), DATASET, BLOCK, Lfn("/store/gone"), "", 0, 5, None, "", None, REASON)

SMALL_INTENT = m.TransferIntent(INTENT, Text(""), (Selector(Kind.FILE, LFN),), (C,))
RICH_INTENT = m.TransferIntent(
    INTENT,
    Text("Zoë, for the 2026 analysis"),
    (Selector(Kind.FILE, LFN), Selector(Kind.BLOCK, BLOCK), Selector(Kind.DATASET, DATASET)),
    (B, Destination("T3_C/zpeak")),
    A,
    9,
    1_800_000_000_000,
    "entries:Events[0:100]{nMuon}",
    "arrow",
    True,
    1_900_000_000_000,
    7,
    "log",
    True,
    owner=Text("higgs"),
)
SMALL_MANIFEST = m.ManifestWritten(INTENT, B, 0, 0, "", "", m.Unit.BYTES, (WHOLE,), True)
RICH_MANIFEST = m.ManifestWritten(
    INTENT, B, 2, 7, SHA256, "0001.root", m.Unit.ENTRIES, (PART, NOBODYS, OTHER_PART), False
)
FAILED = (m.FailedItems(Ranges([(1, 2), (4, 6)]), REASON), m.FailedItems(Ranges.of(9), REASON))

LANDED = (m.Landed(0, 100, Adler32("00ab12cd")), m.Landed(3, 200, Adler32("ffffffff")))

SMALL_COMPLETION = m.CompletionRecord(INTENT, MANIFEST, C, m.Ended.DONE, 0, Ranges(), (), Ranges(), 0, SHA256)
RICH_COMPLETION = m.CompletionRecord(
    INTENT, MANIFEST, C, m.Ended.CANCELLED, 10, Ranges([(0, 1), (2, 4)]), FAILED, Ranges([(6, 9)]), 300, SHA256, LANDED
)

FIRST: tuple[Any, ...] = (B, DATASET, 1, "", "p", 0, Text(""), None, Text(""))
LATER: tuple[Any, ...] = (
    *(B, DATASET, 300, SHA256, "worker-1/6f1e-3", 1_800_000_000_000),
    *(Text("Zoë"), INTENT, Text("the disk is full…")),
)

SMALL: tuple[Any, ...] = (
    m.Origin(A, "w", "i", 0, 0),
    m.ChunkHeader(MANIFEST, C, 1, 0, 100, (m.Segment(0, 0, 100, 100, 0),), True),
    SMALL_INTENT,
    m.IntentAsked(INTENT, m.Asked.DENY, Text(""), site=B, reason=Text("no room before May")),
    m.SiteAnswered(INTENT, C, 1, m.Answer.PENDING, Text("")),
    m.IntentDecided(INTENT, 1, m.Verdict.REFUSED, SMALL_INTENT, None, 0, 5),
    SMALL_MANIFEST,
    m.TransferPlanned(MANIFEST, C, 1, 5, None, (), False, SMALL_MANIFEST),
    m.TransferDecided(MANIFEST, 1, m.Verdict.CANCELLED, 5),
    m.PartOpened(MANIFEST, 0, "default", Ranges()),
    m.PartLost(MANIFEST, 0, REASON),
    m.LeaseExpired(MANIFEST, B, 1),
    m.SourceFailed(MANIFEST, B, 1, "log", Ranges(), REASON, 0),
    m.TransferClosed(MANIFEST, SMALL_COMPLETION),
    m.ChunksRequested(
        MANIFEST, C, B, 1, 0, "p", (m.RequestedItem(0, LFN, 0, 4096, ""),), Ranges([(0, 4096)]), 1_800_000_000_000
    ),
    m.TransferProgress(MANIFEST, C, 0, "default", Ranges(), Ranges()),
    m.ChunksServed(MANIFEST, B, C, 1, Ranges(), 0),
    m.ChunksOffered(MANIFEST, C, B, 1, Ranges.of(0), 0, (), REASON),
    m.UrlsOffered(MANIFEST, C, B, 1, Ranges.of(0), 0, (m.ItemUrl(0, "http://h/f"),)),
    m.TransferReported(INTENT, MANIFEST, C, 1, "active", 0, 0, 0, 0, 0, Text("")),
    SMALL_COMPLETION,
    m.RemovalReported(INTENT, B, 0, 0, 0, 0, 0, 0, 0, False),
    m.FilesHeld(DATASET, B, (m.HeldFile(LFN, BLOCK, 0, Adler32("00000001"), ""),)),
    m.FilesLost(DATASET, B, (LFN,), REASON),
    m.ClaimDecided(*FIRST, (), (MANIFEST,)),
    m.LeaveAsked(*FIRST, BLOCK, "", (m.LeavingFile(LFN, 0, Adler32("00000001"), "v", ("w",)),), (C,)),
    m.KeepPromised(*FIRST, C, 1, SHA256, (LFN,)),
    m.RemovalDecided(*FIRST, 1, (m.RemovedFiles((LFN,), ()),)),
    m.ChainSettled(*FIRST),
    m.ReplicasChecked(B, DATASET, C, 1, SHA256, 0, (), (m.KeptFile(LFN, Text("")),)),
    m.SiteAnnounced(A, "w", "i", "cli", "", "", (), (), 1, False, ()),
    m.JournalsSealed(A, 0, "", 0, (m.SealedJournal(A, "manifests", 0, 1, bytes(32)),), None, b""),
    m.DeadLetter(Text("unknown schema id 7"), "manifests", 0, 0, b"", b"", ""),
)
RICH: tuple[Any, ...] = (
    m.Origin(A, "worker-1/plane", "6f1e-3", (1 << 63) - 1, 1_800_000_000_123),
    m.ChunkHeader(
        MANIFEST,
        C,
        300,
        1 << 40,
        (1 << 40) + 300,
        (
            m.Segment(0, 1 << 33, 100, 100, 0xFFFFFFFF),
            m.Segment(1, 0, 50, 50, 77),
            m.Segment(1, 50, 50, 0, None, REASON),
            m.Segment(999, 0, 100, 4000, 1, None, "0123456789abcdef"),
        ),
        False,
    ),
    RICH_INTENT,
    m.IntentAsked(INTENT, m.Asked.PRIORITY, Text("Zoë"), 0),
    m.SiteAnswered(INTENT, B, 300, m.Answer.DENIED, Text("Zoë"), Text("no room before May")),
    m.IntentDecided(INTENT, 300, m.Verdict.ACCEPTED, RICH_INTENT, B, 2, 9, REASON),
    RICH_MANIFEST,
    m.TransferPlanned(
        RICH_MANIFEST.manifest, C, 300, 0, "door", (m.Route(B, "door", Text("both offer one")),), True, RICH_MANIFEST
    ),
    m.TransferDecided(MANIFEST, 300, m.Verdict.SUPERSEDED, 9, REASON),
    m.PartOpened(MANIFEST, 70, "bulk", Ranges([(0, 1), (3, 4), (10, 1000)]), FAILED, LANDED),
    m.PartLost(MANIFEST, 70, REASON),
    m.LeaseExpired(MANIFEST, B, 300, 1_800_000_000_000),
    m.SourceFailed(MANIFEST, B, 300, "log", Ranges([(0, 1), (3, 1000)]), REASON, 1_800_000_000_000),
    m.TransferClosed(MANIFEST, RICH_COMPLETION, False),
    m.ChunksRequested(
        MANIFEST,
        C,
        B,
        300,
        70,
        "worker-1/plane",
        (m.RequestedItem(3, LFN, 0, 4096, "v"), m.RequestedItem(5, LFN, 4096, 100, "", "entries:Events[0:100]{nMuon}")),
        Ranges([(100, 200), (4000, 4196)]),
        1_800_000_000_000,
        "capability",
    ),
    m.TransferProgress(
        MANIFEST,
        C,
        70,
        "bulk",
        Ranges([(0, 100), (1 << 40, 1 << 41)]),
        Ranges([(0, 1), (3, 4)]),
        FAILED,
        LANDED,
        Ranges([(50, 100)]),
    ),
    m.ChunksServed(MANIFEST, B, C, 300, Ranges([(0, 100), (200, 300)]), 1 << 40, "door"),
    m.ChunksOffered(
        MANIFEST,
        C,
        B,
        300,
        Ranges([(0, 100), (1 << 40, 1 << 41)]),
        1_800_000_000_000,
        (
            m.OfferedDoor("t2g", "http://127.0.0.1:6067", "0123456789abcdefghijklmnopqrstuvwxyz-_ABCDE"),
            m.OfferedDoor("t2g", "https://door.example.org:6067/t2g", "t"),
        ),
    ),
    m.UrlsOffered(
        MANIFEST,
        C,
        B,
        300,
        Ranges([(0, 100), (1 << 40, 1 << 41)]),
        1_800_000_000_000,
        (
            m.ItemUrl(0, "https://s3.example.org/raw/a%20b.root?X-Amz-Expires=3600&X-Amz-Signature=ab", "9b2c-7"),
            m.ItemUrl(999, "http://[::1]:1094//store/x.root"),
        ),
        "eyJhbGciOiJFUzI1NiJ9.e30.-_~+/9A==",
        ("pool.example.org", "*.pools.example.org"),
        (m.FailedItems(Ranges([(1, 2), (4, 6)]), REASON),),
    ),
    m.TransferReported(
        INTENT,
        MANIFEST,
        C,
        300,
        "active",
        5,
        1 << 40,
        3,
        2,
        1000,
        Text("the source"),
        REASON,
        m.Unit.ENTRIES,
        ("door", "log"),
    ),
    RICH_COMPLETION,
    m.RemovalReported(
        INTENT,
        B,
        3,
        900,
        1 << 40,
        3,
        1 << 33,
        97,
        300,
        False,
        (m.KeptFiles(Text("the last copy…"), 2, LFN), m.KeptFiles(Text("T1_A: it is claimed"), 1, Lfn("/store/x"))),
        Text("T1_A to promise"),
    ),
    m.FilesHeld(
        DATASET,
        B,
        (
            m.HeldFile(LFN, BLOCK, 1 << 40, Adler32("ffffffff"), "v"),
            m.HeldFile(Lfn("/store/x"), BLOCK, 0, Adler32("00000001"), "", LFN, "entries:Events[0:100]"),
        ),
        MANIFEST,
    ),
    m.FilesLost(DATASET, B, (LFN, Lfn("/store/x")), REASON),
    m.ClaimDecided(
        *LATER,
        (
            m.NotedClaim(INTENT, "disk", (Selector(Kind.DATASET, DATASET), Selector(Kind.BLOCK, BLOCK)), False, INTENT),
            m.NotedClaim(MANIFEST, "", (Selector(Kind.FILE, LFN),)),
        ),
        ("r-1", "r-2"),
    ),
    m.LeaveAsked(
        *LATER,
        BLOCK,
        "disk",
        (
            m.LeavingFile(LFN, 1 << 40, Adler32("ffffffff"), "4096,1700000000000000001,77", (MANIFEST, "6f1e-3/300")),
            m.LeavingFile(Lfn("/store/x"), 0, Adler32("00000001"), "v", ("w",)),
        ),
        (A, C),
        1_900_000_000_000,
        2,
    ),
    m.KeepPromised(*LATER, C, 299, SHA256, (LFN,), (m.KeptFile(Lfn("/store/x"), Text("it is not on the disk")),)),
    m.RemovalDecided(
        *LATER,
        299,
        (m.RemovedFiles((LFN,), (m.ReliedOn(A, 7), m.ReliedOn(C, 1 << 40)), ("tape",)),),
        (m.KeptFile(Lfn("/store/x"), Text("claimed…")),),
    ),
    m.ChainSettled(*LATER),
    m.ReplicasChecked(
        B,
        DATASET,
        C,
        300,
        SHA256,
        1 << 40,
        (m.CheckedFile(LFN, 1 << 40, Adler32("ffffffff"), "4096,1700000000000000001,77"),),
        (m.KeptFile(Lfn("/store/x"), Text("no such file…")),),
        (m.SeenFile(Lfn("/store/y"), 1 << 40, "4096,1700000000000000001,78"),),
    ),
    m.SiteAnnounced(
        A,
        "worker-1",
        "6f1e-3",
        "worker",
        "http://127.0.0.1:6066",
        SHA256,
        (B, C),
        ("default", "bulk"),
        5,
        True,
        (m.LastSequence("manifests", 7, 300), m.LastSequence("chunk-requests-to-T2_B", 0, 0)),
        "https://[::1]:6067",
    ),
    m.JournalsSealed(
        A,
        300,
        SHA256,
        1_800_000_000_000,
        (
            m.SealedJournal(A, "chunk-requests-to-T2_B", 7, 1 << 40, bytes(range(32))),
            m.SealedJournal(B, "completion-records", 0, 1, b"\xff" * 32),
        ),
        m.Certificate(
            A, "630dcd2966c43366", bytes(range(32)), "sealer", 1_700_000_000_000, 1_900_000_000_000, b"\x5a" * 64
        ),
        b"\xa5" * 64,
    ),
    m.DeadLetter(Text("malformed Avro…"), "T2_B.manifests", 7, 1 << 40, b"\x00\xff", bytes(range(256)), "T2_B"),
)


class Record:
    """A record as it stands in a log of `here`, to be changed by a test and decoded."""

    def __init__(self, message: Any, **changes: Any) -> None:
        from streams import wire

        author = m.author(message) or A
        self.here: Site = author
        self.origin = m.Origin(author, "worker-0", "i", 3, 1_700_000_000_000)
        self.topic = m.topic_of(message)
        key = m.key_of(message)
        self.key: bytes | None = key if isinstance(key, bytes) else key.encode()
        self.value: bytes | None = wire.encode(message)
        self.headers: Any = wire.headers(message, self.origin)
        for name, value in changes.items():
            setattr(self, name, value)

    def mirrored_to(self, site: Site) -> Record:
        self.topic = topics.remote(self.here, self.topic)
        self.here = site
        return self

    def decode(self) -> Any:
        from streams import wire

        return wire.decode(self.topic, self.key, self.value, self.headers, self.here)


@pytest.fixture(scope="session")
def samples() -> dict[str, dict[str, Any]]:
    """name -> {"small": value, "rich": value}"""
    return {type(s).__name__: {"small": s, "rich": r} for s, r in zip(SMALL, RICH, strict=True)}


@pytest.fixture(scope="session")
def messages() -> list[Any]:
    """Every sample that is a message of its own."""
    return [v for v in (*SMALL, *RICH) if isinstance(v, get_args(m.Message))]


@pytest.fixture(scope="session")
def record() -> type[Record]:
    return Record


@pytest.fixture(scope="session")
def rich_items() -> Any:
    """A manifest of 1,000 whole files with distinct names."""
    items = tuple(
        replace(WHOLE, lfn=Lfn(f"{LFN[:-9]}{n:04}.root"), target=Lfn(f"{LFN[:-9]}{n:04}.root"), version=f"4096,{n}")
        for n in range(1000)
    )
    return replace(SMALL_MANIFEST, items=items)

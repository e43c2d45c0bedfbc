"""The history of an intent or a file, out of the index that the last audit left. No log is read, nothing judged."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import merge
from itertools import accumulate, groupby
from pathlib import Path

from streams.auditing.index import AuditIndex, open_index
from streams.core.ledger.custody import Step, of_item, steps
from streams.core.ledger.facts import Facts, Kind
from streams.core.ledger.files import Brought, ReplicaJudge, Word
from streams.core.ledger.rows import Codec, Names
from streams.core.names import IntentId, Lfn
from streams.errors import NotFound


@dataclass(frozen=True, slots=True)
class History:
    """`read_ms`: when the audit ended that had read it."""

    steps: list[Step]
    read_ms: int


def intent_history(path: Path, intent: IntentId) -> History:
    """Of the index at `path`. NotFound where there is none, or it knows nothing of the intent."""
    with _opened(path) as (kept, read_ms):
        found = steps(kept.facts.of(intent), kept.writer)
    if not found:
        raise NotFound(f"the last audit had read nothing of {intent}", next="`transfer2go audit` reads on")
    return History(found, read_ms)


def file_history(path: Path, lfn: Lfn) -> History:
    """The same, of a file: what sites said of it, and how transfers brought it."""
    with _opened(path) as (kept, read_ms):
        words, brought = kept.replicas.said_of(lfn)
        # Each list is in the order of positions and causes; between two of them clocks decide.
        lists = [*kept.said(words), *(kept.brought(one) for one in brought)]
        found = list(merge(*map(_dated, lists), key=lambda one: one[0]))
    if not found:
        raise NotFound(f"the last audit had read nothing of {lfn}", next="`transfer2go audit` reads on")
    return History(list(dict.fromkeys(step for _, step in found)), read_ms)


def _dated(some: list[Step]) -> list[tuple[int, Step]]:
    """With the latest time up to each: a step without one, or with an earlier one, stays behind what it follows."""
    times = accumulate((step.at_ms or 0 for step in some), max)
    return list(zip(times, some, strict=True))


class _Kept:
    """What an index has."""

    def __init__(self, index: AuditIndex) -> None:
        self._codec = Codec(Names(index), index.salt)
        self.facts = Facts(index, self._codec)
        self.replicas = ReplicaJudge(index, self._codec)

    def writer(self, life: int) -> str:
        return self._codec.life_of(life)[1]

    def said(self, words: list[Word]) -> Iterator[list[Step]]:
        """Registrations and losses, by partition; what transfers brought is told with them."""
        originals = {(word.site, word.life, word.at_ms) for word in words if word.is_original}
        told = [
            word
            for word in words
            if not word.manifest and (word.is_original or (word.site, word.life, word.at_ms) not in originals)
        ]
        for _, some in groupby(sorted(told, key=lambda word: word.place), key=lambda word: word.place[:3]):
            yield [self._said(word) for word in some]

    def _said(self, word: Word) -> Step:
        dataset = self._codec.names.name(word.dataset)
        how = "gave it up" if word.is_loss else f"registered it, {word.size} bytes, adler32 {word.adler32:08x},"
        by = f"{self.writer(word.life)} at {word.site}"
        return Step(f"{word.site} {how} in {dataset}", by, word.at_ms, word.place)

    def brought(self, one: Brought) -> list[Step]:
        """How a manifest's item came to its destinations."""
        manifest = self.replicas.manifest_of(one.content)
        if manifest is None:
            return []
        facts = self.facts.of(manifest.intent)
        line = next(
            (
                _line(fact.words, one.item)
                for fact in facts
                if fact.kind is Kind.MANIFEST and fact.content == one.content
            ),
            (0, 0),
        )
        return steps(of_item(facts, manifest.source_no, manifest.no, one.item, line), self.writer)


def _line(words: tuple[object, ...], item: int) -> tuple[int, int]:
    """The positions of an item on its manifest's line."""
    sizes, lengths = words[11], words[13]
    assert isinstance(sizes, bytes)
    assert isinstance(lengths, bytes)
    own = array("Q", lengths or sizes)
    start = sum(own[:item])
    return start, start + own[item]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[_Kept, int]]:
    cut = path / "cut"
    if not cut.exists():
        raise NotFound("no audit has been kept here", str(path), "run `transfer2go audit` first")
    read_ms = int(cut.stat().st_mtime * 1000)
    with open_index(path, {}, read_only=True) as index:
        yield _Kept(index), read_ms

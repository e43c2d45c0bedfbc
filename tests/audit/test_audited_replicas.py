"""What the audit takes a site to hold is what views do, in whatever order words, losses and repeats come."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from streams.auditing.replicas import AuditedReplicas
from streams.core import records as m
from streams.core.ledger.findings import LogPosition
from streams.core.names import Adler32, Block, Dataset, Lfn
from streams.core.topics import REPLICAS
from streams.views import rows
from streams.views.folding import Changes
from tests.audit.history import WHY, B

LFNS = [Lfn(f"/store/{name}") for name in "abc"]
DATASETS = [Dataset("/P/R/AOD"), Dataset("/P/R/RAW")]
Fact = m.FilesHeld | m.FilesLost


class Told(AuditedReplicas):
    """Hears these facts, in their order."""

    def __init__(self, db: Any, facts: list[Fact]) -> None:
        super().__init__(db, None, B)  # type: ignore[arg-type]
        self._told = facts

    def _facts(self, start: Mapping[Any, int]) -> Iterator[tuple[LogPosition, Fact, str]]:
        for offset, fact in enumerate(self._told):
            yield LogPosition(B, REPLICAS, 0, offset), fact, fact.word if isinstance(fact, m.FilesHeld) else ""


def drawn(chance: random.Random) -> list[Fact]:
    """Facts of one partition, and now and then its tail again."""
    facts: list[Fact] = []
    for _ in range(chance.randrange(1, 25)):
        dataset, lfns = chance.choice(DATASETS), tuple(chance.sample(LFNS, chance.randrange(1, 4)))
        if chance.random() < 0.5:
            size = chance.randrange(3)
            files = tuple(m.HeldFile(lfn, Block(f"{dataset}#b"), size, Adler32(f"{size:08x}"), "") for lfn in lfns)
            facts.append(m.FilesHeld(dataset, B, files, word=f"w{chance.randrange(6)}"))
        else:
            taken = tuple(
                m.TakenWords(tuple(f"w{n}" for n in chance.sample(range(6), chance.randrange(1, 4)))) for _ in lfns
            )
            removal = "0" * 64 if chance.random() < 0.5 else ""
            facts.append(
                m.FilesLost(dataset, B, lfns, WHY, taken=taken, removal_sha256=removal)
                if chance.random() < 0.7
                else m.FilesLost(dataset, B, lfns, WHY)
            )
        if chance.random() < 0.1:
            facts += facts[-chance.randrange(1, 4) :]
    return facts


@pytest.mark.parametrize("seed", range(150))
def test_it_holds_what_a_view_holds(tmp_path: Path, seed: int) -> None:
    facts = drawn(random.Random(seed))
    audited, viewed = (rows.open_primary(str(tmp_path / name)) for name in ("audited", "viewed"))
    changes = Changes(viewed)
    for fact in facts:
        if isinstance(fact, m.FilesHeld):
            changes.hold(fact, fact.word)
        else:
            changes.lose(fact)
    changes.write()
    replicas = Told(audited, facts)
    replicas.fold()
    found = {(one.lfn, one.dataset): (one.bytes, one.adler32, tuple(sorted(one.words))) for one in replicas.all()}
    wanted = {
        (lfn, e.dataset): (e.bytes, e.adler32, e.words)
        for lfn in LFNS
        for e in rows.unpack_file(viewed.get(rows.file_key(lfn)))
        if e.held
    }
    assert found == wanted
    assert replicas.held(LFNS) == [any(lfn == of for of, _ in wanted) for lfn in LFNS]
    # What was lost is held no more, and says by which words.
    for one in replicas.lost():
        assert (one.lfn, one.dataset) not in wanted
        assert one.lost
        last = next(
            fact
            for fact in reversed(facts)
            if isinstance(fact, m.FilesLost) and fact.dataset == one.dataset and one.lfn in fact.lfns
        )
        assert not last.removal_sha256
    for db in (audited, viewed):
        db.close()

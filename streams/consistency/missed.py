"""What a site's cluster says now of files that a look missed: the site's chains, words that stand, who else has them.

Folded as views fold, of these files alone, into a database of a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from streams import wire
from streams.auditing.replicas import AuditedReplica
from streams.core import records as m
from streams.core import topics
from streams.core.keeping import gates
from streams.core.keeping.chains import ChainRow
from streams.core.keeping.gates import FileHere
from streams.core.names import Adler32, Block, Dataset, Lfn, Site
from streams.errors import WireError
from streams.kafka.reader import Record
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views import rows
from streams.views.folding import Changes
from streams.views.keeping import Chains

_MISSED = b"@"
_BATCH = 1000
_TOUCHED_MAX = 4000
_ENDPOINT = ""
"""The default one, as records name it."""


class MissedFiles:
    """Of the files that `read` was told of; as old as the ends of the journals then."""

    def __init__(self, db: Any, site: Site) -> None:
        self._db, self.site = db, site
        self._chains = Chains(db)

    @classmethod
    def read(cls, settings: Settings, site: Site, db: Any, lfns: Iterable[str]) -> Self:
        """Fold the site's journals, and its copies of others'. Temporary, NotFound as of a replay."""
        missed = 0
        for some in rows.batched(lfns, _BATCH):
            rows.write(db, {_MISSED + lfn.encode(): b"" for lfn in some})
            missed += len(some)
        if missed:
            own = [topics.KEEPING, *topics.with_copies([topics.REPLICAS], settings.registry.peers_of(site))]
            _fold(db, site, replay(settings, site, own))
        return cls(db, site)

    def why_no_loss(self, replica: AuditedReplica) -> str | None:
        """Why it is not said, outside its chain, that the site has lost a file; None: nothing speaks against it."""
        chain, file = self.chain(replica), self._file(replica)
        if (why := gates.why_no_step(chain) or gates.why_no_loss(chain, file.lfn)) is not None:
            return why
        if (why := gates.why_it_goes(file)) is not None:
            return why
        return None if set(replica.words) & file.replica.words else "its words were taken back meanwhile"

    def claim(self, replica: AuditedReplica) -> str:
        """A live claim that keeps the file at the site; "" for none. That of a move's source lets it go.

        Of a disputed chain none counts.
        """
        chain = self.chain(replica)
        if chain.disputed:
            return ""
        place = _ENDPOINT, Block(replica.block), Lfn(replica.lfn)
        found = chain.claims.protecting(*place, None)
        if found is not None and not found.lands:
            found = chain.claims.protecting(*place, found.intent)
        return found.claim if found is not None and found.lands else ""

    def holders(self, replica: AuditedReplica) -> tuple[Site, ...]:
        """Other sites that hold the same bytes in the same dataset."""
        wanted = replica.dataset, replica.bytes, replica.adler32
        entries = rows.unpack_file(self._db.get(rows.file_key(replica.lfn)))
        return tuple(
            sorted(
                {Site(e.site) for e in entries if e.held and (e.dataset, e.bytes, e.adler32) == wanted} - {self.site}
            )
        )

    def chain(self, replica: AuditedReplica) -> ChainRow:
        return self._chains.chain(self.site, Dataset(replica.dataset))

    def _file(self, replica: AuditedReplica) -> FileHere:
        named = Lfn(replica.lfn), Block(replica.block), replica.bytes, Adler32(replica.adler32)
        (file,) = self._chains.files(self.site, _ENDPOINT, [named])
        return file


def _fold(db: Any, site: Site, records: Iterator[Record]) -> None:
    changes = Changes(db)
    for record in records:
        with suppress(WireError):  # the site's workers file it as a dead letter
            heard = wire.decode(record.topic, record.key, record.value, record.headers, site)
            match heard.message:
                case m.FilesHeld():
                    of = _missed(db, [file.lfn for file in heard.message.files])
                    files = tuple(file for file in heard.message.files if file.lfn in of)
                    if files:
                        changes.hold(replace(heard.message, files=files), m.word_of(heard.message, heard.origin))
                case m.FilesLost():
                    _lose(changes, heard.message, _missed(db, heard.message.lfns))
                case m.ChainStep():
                    changes.decide(heard.message)
        if changes.touched >= _TOUCHED_MAX:
            changes.write()
            changes = Changes(db)
    changes.write()


def _lose(changes: Changes, lost: m.FilesLost, of: set[Lfn]) -> None:
    some = [n for n, lfn in enumerate(lost.lfns) if lfn in of]
    if some:
        taken = tuple(lost.taken[n] for n in some) if lost.taken else ()
        changes.lose(replace(lost, lfns=tuple(lost.lfns[n] for n in some), taken=taken))


def _missed(db: Any, lfns: Sequence[Lfn]) -> set[Lfn]:
    found = db.get([_MISSED + lfn.encode() for lfn in lfns]) if lfns else []
    return {lfn for lfn, row in zip(lfns, found, strict=True) if row is not None}

"""A ledger of one site that is followed: what was told of it is kept beside the facts, so that a restart goes on.

What else belongs to a cut, and is nothing of the ledger's, is kept as it is given (`beside`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streams.core.ledger import Ledger
from streams.core.ledger.rows import Rows
from streams.core.ledger.seals import Seals
from streams.core.ledger.telling import ToldFindings
from streams.core.names import Site


class LiveLedger(Ledger):
    """`beside`: kept with the cut; what stood in it then after `go_on`."""

    def __init__(
        self,
        sites: Iterable[Site],
        site: Site,
        *,
        partitions: int,
        auditors: Iterable[Site],
        release: int,
        seals: Seals,
        rows: Rows,
        salt: bytes,
        beside: Any,
    ) -> None:
        super().__init__(
            sites,
            partitions=partitions,
            read=[site],
            auditors=auditors,
            release=release,
            seals=seals,
            rows=rows,
            salt=salt,
            live=True,
        )
        self.told, self.beside = ToldFindings(), beside

    def kept(self) -> tuple[Any, ...]:
        files = self._replicas.touched, self._replicas.registered
        return super().kept(), files, self.told.kept(), self.beside

    def go_on(self, kept: tuple[Any, ...]) -> None:
        of_ledger, (self._replicas.touched, self._replicas.registered), told, self.beside = kept
        super().go_on(of_ledger)
        self.told.go_on(told)

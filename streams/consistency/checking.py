"""A check of one site: the audit's look at its disk, then what is to be done about what it found, done or only told.

1. Lost, in the catalogue before and after the look and twice not on the disk: said (losses.py), unless the site's chain
   speaks against it.
2. Of what was lost by accident, now or at an earlier check, what a live claim of the site covers is owed a copy: asked
   for, where another site holds it. The request's name follows from what is lost, so asked again it is the same one.
3. Dark: noted, and set aside once a check of a week ago had noted it too (dark.py). What the journals name meanwhile is
   brought back.

Read off the journals each time: a check that was killed is completed by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from streams import waits
from streams.auditing.disks import Disks
from streams.auditing.replicas import AuditedReplica
from streams.auditing.storage import DiskLook
from streams.client.producer import TransferClient
from streams.consistency import dark, losses
from streams.consistency.missed import MissedFiles
from streams.core.ledger.findings import FindingList
from streams.core.names import IntentId, Lfn, Text
from streams.core.sampling import Sample
from streams.core.selectors import Kind, Selector
from streams.core.store_names import BASE
from streams.errors import StorageError, Temporary
from streams.kafka.publish import Publisher, wall_ms, writer_of
from streams.settings import Settings
from streams.storage.endpoint import Endpoint
from streams.views import scratch

REQUESTER = Text("site check")
ASKED_MAX = 10_000
"""Requests of one check, each of one file: what is owed beyond is asked for by the next, when these are known."""
_BATCH = 1000
_OF_A_STORE = "it is a key of a store, which has no marker: whether the store is the right one nobody can tell"


@dataclass(frozen=True, slots=True)
class Lost:
    """A file that is not on the disk. `before`: said to be lost by an earlier check, or by `file verify`.

    `said`: whether it is said to be lost. `why_not`: why it is not, and would not be. `claim`: that covers it, "" for
    none. `holders`: other sites that have it. `intent`: by which it comes again.
    """

    replica: AuditedReplica
    before: bool = False
    said: bool = False
    why_not: str = ""
    claim: str = ""
    holders: tuple[str, ...] = ()
    intent: IntentId | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """A file that is there and is not as it is held; nothing is done about it here."""

    replica: AuditedReplica
    why: str


@dataclass(frozen=True, slots=True)
class Dark:
    """What nobody holds. `since_ms`: since when checks have seen it. `due`: it may be set aside.

    `aside`: where it was moved to; `why_not`: why it stays though it is due.
    """

    path: str
    since_ms: int
    due: bool
    aside: str = ""
    why_not: str = ""


Told = Lost | Wrong | Dark


@dataclass(slots=True)
class CheckTally:
    """What was looked at and found. `owed`: lost before, and not there again. `too_many_dark`: none is set aside.

    `asked`: by new requests. `unseen`: whether something could not be looked at. `unnoted`: why what was seen is not
    noted, "" if it is.
    """

    replicas: int = 0
    walked: int = 0
    read: int = 0
    lost: int = 0
    owed: int = 0
    wrong: int = 0
    dark: int = 0
    due: int = 0
    said: int = 0
    asked: int = 0
    aside: int = 0
    too_many_dark: bool = False
    unseen: bool = False
    unnoted: str = ""

    @property
    def found(self) -> int:
        return self.lost + self.owed + self.wrong + self.dark


def check(
    settings: Settings,
    findings: FindingList,
    told: Callable[[Told], None],
    *,
    sample: Sample | None,
    execute: bool,
    by: str,
) -> CheckTally:
    """Check the site of the settings. `sample`: whose contents are read too, None for none. `by`: who asks for it.

    Temporary, before anything is said, where the disk or the journals are out of reach, or another disk is mounted.
    """
    site, now_ms = settings.here, wall_ms()
    with ExitStack() as stack:
        wait = stack.enter_context(waits.on(f"the disk of {site} to be looked at"))
        disks = stack.enter_context(closing(Disks(settings, findings, wait)))
        db = stack.enter_context(scratch.database())
        look = DiskLook(settings, site, findings, disks, db, wait)
        if disks.endpoint(site) is None:
            what = f"the storage of {site} is out of reach from here"
            raise Temporary(what, next="check it where its disk is mounted and its site.toml is")
        look.run(sample, now_ms)
        endpoint = look.endpoint
        assert endpoint is not None
        if execute and not look.marked:
            what = f"the storage of {site} has no marker, so another disk could not be told from it"
            raise Temporary(what, endpoint.root, f"start a worker of {site}, which marks it, and check again")
        if look.replicas and not look.walked:
            what = f"no file at all is on the disk of {site}, which holds {look.replicas:,}: none is called lost"
            raise Temporary(what, endpoint.root, "mount the disk, and check again")
        one = _Check(settings, look, endpoint, told, stack, execute=execute, by=by, now_ms=now_ms)
        one.losses()
        one.dark_files()
        tally = one.tally
        tally.replicas, tally.walked, tally.read = look.replicas, look.walked, disks.files
        tally.unseen = bool(disks.unreachable)
        return tally


class _Check:
    def __init__(
        self,
        settings: Settings,
        look: DiskLook,
        endpoint: Endpoint,
        told: Callable[[Told], None],
        stack: ExitStack,
        *,
        execute: bool,
        by: str,
        now_ms: int,
    ) -> None:
        self._settings, self._look, self._endpoint, self._told, self._stack = settings, look, endpoint, told, stack
        self._execute, self._by, self._now_ms = execute, by, now_ms
        self._client: TransferClient | None = None
        self.tally = CheckTally()

    # lost

    def losses(self) -> None:
        site, tally = self._look.site, self.tally
        missed = MissedFiles.read(
            self._settings, site, self._stack.enter_context(scratch.database()), self._missed_names()
        )
        why = losses.reason("check", f"site check, asked by {self._by}: twice not on the disk")
        publisher = None
        if self._execute:
            opened = Publisher(self._settings, site, writer_of("check"), "cli", opened=False)
            publisher = self._stack.enter_context(opened)
        for batch in losses.batches(self._lost(missed)):
            if publisher is not None:
                losses.say(publisher, batch.record(site, why))
                tally.said += len(batch.replicas)
            for replica in batch.replicas:
                self._told(self._owed(missed, replica, before=False))
        for replica in self._look.lost_before():
            if missed.claim(replica):
                tally.owed += 1
                self._told(self._owed(missed, replica, before=True))

    def _missed_names(self) -> Iterator[str]:
        yield from (one.replica.lfn for one in self._look.wrong() if one.gone)
        yield from (replica.lfn for replica in self._look.lost_before())

    def _lost(self, missed: MissedFiles) -> Iterator[AuditedReplica]:
        """Those of which it may be said; the others, and what is wrong otherwise, are told here."""
        for replica, why, gone in self._look.wrong():
            if not gone:
                self.tally.wrong += 1
                self._told(Wrong(replica, why))
                continue
            self.tally.lost += 1
            why_not = _OF_A_STORE if replica.lfn.startswith(BASE) else missed.why_no_loss(replica)
            why_not = why_not or self._brought_back(replica)
            if why_not is None:
                yield replica
            else:
                self._told(Lost(replica, why_not=why_not))

    def _brought_back(self, replica: AuditedReplica) -> str | None:
        """What becomes of a file that an earlier check set aside; None where none lies there that could be it.

        Somebody may have registered it while it was moved, or that check was killed before it looked for that.
        """
        endpoint, look = self._endpoint, self._look
        path = endpoint.path_of(replica.lfn)
        found = endpoint.lies_aside(path)
        if found is None or found[1] != replica.bytes:
            return None
        folder = found[0]
        if not self._execute:
            return f"a file of its size lies aside in {endpoint.aside_path(folder)}, and would be looked at"
        (failed,) = endpoint.bring_back([path], folder)
        if failed is not None:
            return f"it lies aside, and cannot be brought back: {failed}"
        if look.is_whole(replica):
            return f"it lay aside in {endpoint.aside_path(folder)}, and was brought back"
        if (there := endpoint.dated(path)) is not None:
            endpoint.set_aside([(path, there.version)], folder)
        return None

    def _owed(self, missed: MissedFiles, replica: AuditedReplica, *, before: bool) -> Lost:
        claim, holders, intent = missed.claim(replica), missed.holders(replica), None
        if claim and holders and self._execute and self.tally.asked < ASKED_MAX:
            if self._client is None:
                self._client = self._stack.enter_context(TransferClient(self._settings, requester=REQUESTER))
            selector = Selector(Kind.FILE, Lfn(replica.lfn))
            asked = self._client.publish([selector], [self._look.site], idempotency_key=repair_key(replica))
            intent = asked.id
            self.tally.asked += asked.is_new
        return Lost(replica, before, before or self._execute, "", claim, holders, intent)

    # dark

    def dark_files(self) -> None:
        """Lines of what is not due, then of what is."""
        tally, before = self.tally, dark.parse(self._endpoint.read_own(dark.SEEN))
        seen, due = dict[str, dark.Seen](), dict[str, dark.Seen]()
        for path, version in self._look.dark():
            tally.dark += 1
            one = dark.Seen(dark.seen_since(before, path, version, self._now_ms), version)
            if len(seen) < dark.NOTED_MAX:
                seen[path] = one
                if dark.is_due(one.since_ms, self._now_ms):
                    due[path] = one
                    continue
            self._told(Dark(path, one.since_ms, False))
        tally.due = len(due)
        tally.too_many_dark = dark.too_many(tally.dark, self._look.walked)
        why_not = dict[str, str]()
        folder = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now_ms / 1000))
        if self._execute and due and not tally.too_many_dark:
            why_not = self._set_aside(due, folder)
            tally.aside = len(due) - len(why_not)
            for path in due.keys() - why_not.keys():
                del seen[path]
        self._note(seen)
        for path, one in due.items():
            moved = self._execute and not tally.too_many_dark and path not in why_not
            aside = f"{self._endpoint.aside_path(folder)}/{path}" if moved else ""
            self._told(Dark(path, one.since_ms, True, aside, why_not.get(path, "")))

    def _set_aside(self, due: dict[str, dark.Seen], folder: str) -> dict[str, str]:
        """Why some stay, by path."""
        endpoint, stays = self._endpoint, dict[str, str]()
        paths = list(due)
        for at in range(0, len(paths), _BATCH):
            some = paths[at : at + _BATCH]
            answers = endpoint.set_aside([(path, due[path].version) for path in some], folder)
            for path, answer in zip(some, answers, strict=True):
                if answer is not None:
                    stays[path] = str(answer)
        # What a landing has found there, or somebody registered, before it was moved.
        named = sorted(self._look.named_since(endpoint, due.keys() - stays.keys()))
        for path, failed in zip(named, endpoint.bring_back(named, folder), strict=True):
            back = "it was named while it was moved, and was brought back"
            stays[path] = back if failed is None else f"it was named while it was moved, and lies aside: {failed}"
        return stays

    def _note(self, seen: dict[str, dark.Seen]) -> None:
        if not self._look.marked:
            self.tally.unnoted = "the storage has no marker yet"
            return
        try:
            self._endpoint.write_own(dark.SEEN, dark.packed(seen))
        except StorageError as error:
            self.tally.unnoted = str(error)


def repair_key(replica: AuditedReplica) -> str:
    """What a repair is called by: the file, its dataset, and the words that were lost."""
    return "\n".join((replica.lfn, replica.dataset, *sorted(replica.words or replica.lost)))

"""I2 of one transfer's bytes: asked ⊇ served ⊇ verified ⊇ sealed, in the line, by who is named, of an opened attempt.

Each step is held to the one before by the positions themselves, in whatever order journals are read.
What it cannot prove: that bytes which were served are those that were verified (their checksums say so, at the
planes); how much a door gave, since its source counts what has left and not what arrived; who served what a tool
brought, or what was fetched by URL from a door of another make or a store, since nobody says so; anything of a site
that was not read; of a consumer, what it worked on beside what it asked for. A source that dies between sending and
saying so leaves bytes without its word: a note, unless it is known to have lived on, as its plane's other records tell.
What is at the destination already, by an earlier record, need not come; nor what is adopted of an earlier attempt, or
of a file that was there: its source's sums are in no record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streams.core.ledger.claims import Claim, ManifestClaim, ManifestClaims, TransferClaims
from streams.core.ledger.findings import CLOCK_TOLERANCE_MS, FindingList, Invariant, LogPosition
from streams.core.ledger.traces import ASKED, SiteNumbers, Step, TraceRow, place_of
from streams.core.names import Destination, ManifestId, Site
from streams.core.ranges import EMPTY, Ranges

_I2 = Invariant.NO_LIE


@dataclass(slots=True)
class Lives:
    """When planes of a site were seen at work, by their own clocks: of each its first and last record (ms)."""

    seen: dict[Site, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """By site and writer: each process of a plane has a name of its own."""

    def saw(self, site: Site, writer: str, at_ms: int) -> None:
        planes = self.seen.setdefault(site, {})
        first, last = planes.get(writer, (at_ms, at_ms))
        planes[writer] = min(first, at_ms), max(last, at_ms)

    def absorb(self, other: Mapping[Site, Mapping[str, tuple[int, int]]]) -> None:
        """Know also what was seen elsewhere."""
        for site, planes in other.items():
            for writer, ends in planes.items():
                for at_ms in ends:
                    self.saw(site, writer, at_ms)

    def lived_on(self, site: Site, at_ms: int) -> bool:
        """Whether one plane was there well before and well after, whichever clock was wrong by minutes."""
        since, until = at_ms - CLOCK_TOLERANCE_MS, at_ms + CLOCK_TOLERANCE_MS
        return any(first < since and last > until for first, last in self.seen.get(site, {}).values())

    def was_one(self, site: Site, start_ms: int, stop_ms: int) -> bool:
        """Whether no plane but one can have been there from `start_ms` to `stop_ms`, and it was there before."""
        since, until = start_ms - CLOCK_TOLERANCE_MS, stop_ms + CLOCK_TOLERANCE_MS
        there = [first for first, last in self.seen.get(site, {}).values() if last >= since and first <= until]
        return len(there) == 1 and there[0] <= start_ms


@dataclass(frozen=True, slots=True)
class LinkJudge:
    """`read`: sites whose journals were replayed whole. `came_otherwise`: whether the site has such a file (a hash of
    its name) by another record than those of the transfer.
    """

    sites: frozenset[Site]
    read: frozenset[Site]
    numbers: SiteNumbers
    lives: Lives
    came_otherwise: Callable[[Site, int, ManifestId], bool]
    findings: FindingList

    def judge(
        self,
        manifest: ManifestId,
        site: Destination,
        transfer: TransferClaims,
        row: ManifestClaims,
        gets: frozenset[Site] | None,
    ) -> None:
        """`gets`: sites to which the intent brings it, of which each may ask another; None where nobody can tell."""
        if site.site not in self.read:
            if site.site in self.sites:
                self.findings.cannot(_I2, f"what {site.site} asked for and verified: not read")
            return
        meant = _meant(transfer, row) if transfer.trace is not None else []
        if not meant:  # nobody wrote it, or several did and none is followed: told under I1
            return
        self.findings.check(_I2)
        _OneLink(self, manifest, site, transfer, meant, gets).judge()


def _meant(transfer: TransferClaims, row: ManifestClaims) -> list[Claim[ManifestClaim]]:
    """The manifest that the destination follows: of rivals the one that its completion names.

    It may have been written twice with other further holders, which are no part of its meaning.
    """
    written = row.written.ranked
    done = transfer.completions.first
    if done is not None and len(written) > 1:
        return [one for one in written if one.word.sha256 == done.word.manifest_sha256]
    return written if len({one.word.sha256 for one in written}) == 1 else []


class _OneLink:
    def __init__(
        self,
        of: LinkJudge,
        manifest: ManifestId,
        site: Destination,
        transfer: TransferClaims,
        meant: list[Claim[ManifestClaim]],
        gets: frozenset[Site] | None,
    ) -> None:
        self.gets = gets
        self.of, self.findings = of, of.findings
        self.manifest, self.site, self.transfer = manifest, site, transfer
        self.meant, self.written = meant[0], meant
        self.title = f"{manifest} at {site}"
        self.starts = self.meant.word.starts
        assert transfer.trace is not None
        self.rows = list(transfer.trace.rows(of.numbers))

    def judge(self) -> None:
        if self._outside():
            return
        self._attempts()
        self._sources()
        asked, served = self._asked(), self._served()
        self._unasked(asked, served)
        self._sealed()
        if self.site.consumer:  # its word counts what it passed by, and what it read in earlier processes
            return
        come = self.transfer.verified - self._line(self.transfer.present)
        never = come - _together(asked)
        if never:
            never = self._not_otherwise(never)
            self._tell(never, f"{self.title}: positions {{}} are verified, and were never asked for")
        self._tell(
            self._not_otherwise(self.transfer.adopted_first & come),
            f"{self.title}: positions {{}} are told as adopted, and nothing was there to adopt from",
        )
        self._unserved((come & _together(asked)) - _together(served) - self.transfer.adopted, served)

    def _line(self, items: Ranges) -> Ranges:
        """The positions that items own."""
        return Ranges((self.starts[a], self.starts[b]) for a, b in items)

    def _where(self, row: TraceRow) -> LogPosition:
        return place_of(row, self.site)

    def _of(self, *steps: Step) -> list[TraceRow]:
        return [row for row in self.rows if row.step in steps]

    def _outside(self) -> bool:
        """What is said of positions or items that the manifest does not have: a finding each, and no more of it."""
        total, items = self.starts[-1], len(self.starts) - 1
        found = False
        for row in self._of(*ASKED, *_SERVED, Step.VERIFIED, Step.SEALED):
            end, what = (items, "items") if row.step is Step.SEALED else (total, "positions")
            if row.stop > end:
                words = (
                    f"{self.title}: {what} {max(row.start, end)}…{row.stop - 1} are {_WORDS[row.step]}, "
                    f"the manifest has {end}"
                )
                self.findings.find(_I2, words, self._where(row), self.meant.place)
                found = True
        beyond = self.transfer.present - Ranges([(0, items)])
        if beyond and not found:
            words = f"{self.title}: items {_some(beyond)} are told as present, the manifest has {items}"
            self.findings.find(_I2, words, self.meant.place)
            found = True
        return found

    def _attempts(self) -> None:
        """Progress of part files that nobody opened. A consumer has none."""
        if self.site.consumer:
            return
        may_be = 1 + max((row.number for row in self._of(Step.LOST)), default=0)
        for row in self._of(Step.TOLD):
            if row.number in self.transfer.attempts:
                continue
            words = f"{self.title}: progress of attempt {row.number}, which no plane opened"
            if row.number > may_be:
                self.findings.miss(_I2, words, row.at_ms, self._where(row))
            else:
                self.findings.note(_I2, f"{words} or could not say so: it was next", self._where(row))

    def _sources(self) -> None:
        """Requests to who is not named as holding what is asked for, and does not get it as well: by door, a relay."""
        names: dict[Site, Ranges] = {}
        for word in (one.word for one in self.written):
            for site, items in (*word.holders, *word.others):
                names[site] = names.get(site, EMPTY) | items
        lines = {site: self._line(items) for site, items in names.items()}
        for row in self._of(*ASKED):
            extra = Ranges([(row.start, row.stop)]) - lines.get(row.by, EMPTY)
            if extra and row.step is Step.ASKED_OF_DOOR and self.gets is None:
                self.findings.cannot(_I2, f"whether {row.by} gets {self.manifest} too: its decisions were not read")
            elif extra and not (row.step is Step.ASKED_OF_DOOR and row.by in (self.gets or ())):
                words = (
                    f"{self.title}: {row.by} is asked for positions {_some(extra)}, and is not named as their holder"
                )
                self.findings.find(_I2, words, self._where(row), self.meant.place)

    def _asked(self) -> dict[Site, Ranges]:
        return _by_site(self._of(*ASKED))

    def _served(self) -> dict[Site, Ranges]:
        return _by_site(self._of(*_SERVED))

    def _unasked(self, asked: Mapping[Site, Ranges], served: Mapping[Site, Ranges]) -> None:
        for source, gave in served.items():
            extra = gave - asked.get(source, EMPTY)
            if not extra:
                continue
            row = next(r for r in self._of(*_SERVED) if r.by == source and Ranges([(r.start, r.stop)]) & extra)
            words = f"{source} served positions {_some(extra)} of {self.title}, and was never asked for them"
            self.findings.miss(_I2, words, row.at_ms, self._where(row))

    def _sealed(self) -> None:
        """Items under their final names that are neither verified to their end nor were found there."""
        found = Ranges.of(
            *(
                item
                for item in (self.transfer.sealed - self.transfer.present).numbers()
                if not self.transfer.verified.covers(self.starts[item], self.starts[item + 1])
            )
        )
        if found:
            row = next(r for r in self._of(Step.SEALED) if Ranges([(r.start, r.stop)]) & found)
            words = f"{self.title}: items {_some(found)} are sealed, and not verified to their end"
            self.findings.find(_I2, words, self._where(row))

    def _not_otherwise(self, positions: Ranges) -> Ranges:
        """Without those of items that another record says are at the site."""
        names = self.meant.word.files.names
        for item in range(len(names)):
            span = Ranges([(self.starts[item], self.starts[item + 1])])
            if span & positions and self.of.came_otherwise(self.site.site, names[item], self.manifest):
                positions = positions - span
        return positions

    def _tell(self, positions: Ranges, words: str, *more: LogPosition) -> None:
        """A finding with the record that says first that some of these are verified."""
        if not positions:
            return
        row = next(r for r in self._of(Step.VERIFIED) if Ranges([(r.start, r.stop)]) & positions)
        self.findings.miss(_I2, words.format(_some(positions)), row.at_ms, self._where(row), *more)

    def _unserved(self, positions: Ranges, served: Mapping[Site, Ranges]) -> None:
        """What was asked for and is verified, and no source says that it gave it."""
        if not positions:
            return
        open_to: dict[Site, Ranges] = {}
        less = EMPTY
        proof: list[LogPosition] = []
        answered = {(row.by, row.number): row for row in self._of(Step.SERVED)}
        by_door = unread = unsure = by_tool = EMPTY
        for row in self._of(*ASKED):
            theirs = Ranges([(row.start, row.stop)]) & positions
            if not theirs:
                continue
            if row.step is Step.ASKED_OF_TOOL:
                by_tool = by_tool | theirs
                continue
            answer = answered.get((row.by, row.number))
            if row.by not in self.of.read:
                unread = unread | theirs
            elif row.step is Step.ASKED_OF_DOOR:
                by_door = by_door | theirs
            elif not (self._lived_on(row) if answer is None else self._was_one(row, answer)):
                unsure = unsure | theirs
            else:
                less = less | theirs
                proof += [self._where(row), *([] if answer is None else [self._where(answer)])]
                open_to[row.by] = open_to.get(row.by, EMPTY) | theirs
        unread, by_door = unread - by_tool, by_door - by_tool
        less, unsure = less - by_tool, unsure - by_tool
        if unread:
            self.findings.cannot(_I2, "what sources that were not read served")
        if by_door - unread:
            self.findings.cannot(_I2, "bytes by door that their source does not count as sent, or not yet")
        less = less - unread - by_door - unsure
        unsure = unsure - unread - by_door
        if less:
            who = ", ".join(sorted(open_to))
            words = f"{self.title}: positions {{}} are verified, {who} was asked for them and did not serve them"
            self._tell(less, words, *proof)
        if unsure:
            row = next(r for r in self._of(Step.VERIFIED) if Ranges([(r.start, r.stop)]) & unsure)
            words = (
                f"{self.title}: positions {_some(unsure)} are verified, and no source says that it served them: "
                "one that ends between sending and saying so does not"
            )
            if self.findings.past(row.at_ms) < self.findings.began_ms:
                self.findings.note(_I2, words, self._where(row))
            else:  # its source may have said so behind the ends that were noted
                self.findings.wait(_I2, "written while the audit was reading")

    def _was_one(self, request: TraceRow, answer: TraceRow) -> bool:
        """Whether who answered has served all of the request: another plane may have sent some, and ended."""
        return self.of.lives.was_one(request.by, request.at_ms, max(request.at_ms, answer.at_ms))

    def _lived_on(self, request: TraceRow) -> bool:
        """Whether the source must have answered: it lived on, and the request was neither given up nor asked again."""
        for row in self.rows:
            if row.step is Step.LOST or (
                row.step is Step.LAPSED and row.by == request.by and row.number >= request.number
            ):
                return False
            again = row.step in ASKED and row.by == request.by and row.number > request.number
            if again and row.start < request.stop and request.start < row.stop:
                return False
        return self.of.lives.lived_on(request.by, request.at_ms)


_SERVED = (Step.SERVED, Step.GIVEN_BY_URL)
"""What a source accounts for: of the second it said by which URLs others give it, and nobody says what they gave."""
_WORDS = {
    Step.ASKED: "asked for",
    Step.ASKED_OF_DOOR: "asked for",
    Step.ASKED_OF_TOOL: "asked for",
    Step.SERVED: "served",
    Step.GIVEN_BY_URL: "offered by URL",
    Step.VERIFIED: "verified",
    Step.SEALED: "sealed",
}


def _by_site(rows: list[TraceRow]) -> dict[Site, Ranges]:
    spans: dict[Site, list[tuple[int, int]]] = {}
    for row in rows:
        spans.setdefault(row.by, []).append((row.start, row.stop))
    return {site: Ranges(found) for site, found in spans.items()}


def _together(ranges: Mapping[Site, Ranges]) -> Ranges:
    return Ranges(span for one in ranges.values() for span in one)


def _some(numbers: Ranges) -> str:
    """At most three spans, in words."""
    shown = [str(a) if b == a + 1 else f"{a}…{b - 1}" for a, b in numbers.spans[:3]]
    return ", ".join(shown) + (f" and more ({numbers.size})" if len(numbers.spans) > 3 else "")

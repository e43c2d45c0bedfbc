"""What sites and manifests say of files, a file at a time: one name has one content, and who is named holds it.

A replica comes from a transfer, or from a registration; what is given up was held; a manifest names holders that said
they hold the file, and its size and checksum as they said them. What it cannot prove: that a registered file is there
(`audit --storage`), nor when, between two journals, a holder's word still stood: any earlier or later word counts.

Rows lie under the hash of a name, so that a scan brings together what all sites and manifests say of one file; it is
forgotten after it. A second reading gives the names that findings tell.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import NamedTuple

from streams.core import records as m
from streams.core.ledger.facts import WORDS_AT, Told
from streams.core.ledger.findings import FINDINGS_MAX, FindingList, Invariant, LogPosition
from streams.core.ledger.journals import PartitionId
from streams.core.ledger.rows import FILE, FILE_WORD, MANIFEST, PLACE_BYTES, REGISTRATION, Codec, Rows
from streams.core.names import ManifestId, Site
from streams.core.ranges import Ranges

_I2, _I4 = Invariant.NO_LIE, Invariant.ONE_EFFECT
TOUCHED_MAX = 200_000
"""Of who follows: names heard of since the last look; of more all files are looked at."""
_NEVER_REGISTER = frozenset(("worker", "plane"))
_NAME = struct.Struct(">Q")
_WORD = struct.Struct(">BIIQIq")
_ITEM = struct.Struct(">BQq")
_ITEM_NO = struct.Struct(">QH")
_FILE_NO = struct.Struct(">H")
_WRITTEN = struct.Struct(">q")
_REGISTERED = struct.Struct(">II")
_HOLDER = struct.Struct(">BI")
_BROUGHT, _TARGET = b"i", b"t"
_LOSS = 1
_WHOLE, _ENTRIES = 1, 2
_NAME_END = len(FILE) + _NAME.size
_FIRST, _FURTHER = 0, 1
_ROLES = {_FIRST: "its holder", _FURTHER: "who also has it"}


class Word(NamedTuple):
    """A file in one FilesHeld or FilesLost: its number there; what the site says of it."""

    place: LogPosition
    file: int
    is_loss: bool
    life: int
    dataset: int
    size: int
    adler32: int
    at_ms: int
    manifest: bytes
    """As rows have it; empty of a registration and a loss."""

    @property
    def site(self) -> Site:
        """Whose word it is: of a copy the site whose topic it is."""
        origin, dot, _ = self.place.topic.partition(".")
        return Site(origin) if dot else self.place.site

    @property
    def is_original(self) -> bool:
        return "." not in self.place.topic

    @property
    def content(self) -> tuple[int, int]:
        return self.size, self.adler32


class Brought(NamedTuple):
    """An item of a manifest, by the hash of the manifest's bytes. `holders`: role and site of who is named."""

    content: int
    item: int
    is_whole: bool
    in_entries: bool
    bytes: int
    adler32: int
    holders: tuple[tuple[int, Site], ...]


@dataclass(slots=True)
class _Mismatch:
    """Items of one manifest, of which a holder's word is another, or none."""

    items: int = 0
    first: int = 1 << 32
    why: str = ""
    word: Word | None = None

    def add(self, item: int, why: str = "", word: Word | None = None) -> None:
        self.items += 1
        if item < self.first:
            self.first, self.why, self.word = item, why, word


@dataclass(slots=True)
class _Found:
    """What one look at files amounts to."""

    names: int = 0
    """Files of which any site said anything."""
    given_up: Counter[Site] = field(default_factory=Counter)
    """Records that give up files."""
    conflicts: list[tuple[int, Word, Word]] = field(default_factory=list)
    """Two files of one name and different contents that stand beside each other."""
    losses: list[Word] = field(default_factory=list)
    """Given up, and never held."""
    mismatches: dict[tuple[int, Site, int, bool], _Mismatch] = field(default_factory=dict)
    """By content of the manifest, holder, role, and whether it never said anything."""
    more_conflicts: int = 0
    more_losses: int = 0
    more_mismatches: int = 0
    faults: int = 0
    """All of them."""

    def differ(self, name: int, one: Word, other: Word) -> None:
        self.faults += 1
        if len(self.conflicts) < FINDINGS_MAX:
            self.conflicts.append((name, one, other))
        else:
            self.more_conflicts += 1

    def lose(self, word: Word) -> None:
        self.faults += 1
        if len(self.losses) < FINDINGS_MAX:
            self.losses.append(word)
        else:
            self.more_losses += 1

    def mismatch(self, key: tuple[int, Site, int, bool]) -> _Mismatch | None:
        """What is known of it so far; None where there are too many."""
        self.faults += 1
        found = self.mismatches.get(key)
        if found is None and len(self.mismatches) < FINDINGS_MAX:
            found = self.mismatches[key] = _Mismatch()
        if found is None:
            self.more_mismatches += 1
        return found


class ReplicaJudge:
    """What sites said they hold and gave up, in each journal's order, and what manifests said of it.

    `live`: looked at again every few seconds, so that only names are that were heard of since, or blamed.
    """

    def __init__(self, rows: Rows, codec: Codec, *, live: bool = False) -> None:
        self._rows, self._codec, self._live = rows, codec, live
        self.touched: set[int] | None = None
        """Of who follows: names (hashes) to look at; None: all."""
        self.registered: set[bytes] | None = None
        """Of who follows: rows of registrations to look at; None: all."""
        self._found: _Found | None = None
        self._asked: dict[LogPosition, list[tuple[int, int]]] = {}
        self._lfns: dict[int, str] = {}

    # what is heard

    def hear(self, place: LogPosition, origin: m.Origin, message: m.FilesHeld | m.FilesLost) -> None:
        """The next record of its journal, and who wrote it; a copy counts where the original is not read."""
        codec, self._found = self._codec, None
        where, life, dataset = codec.place(place), codec.life(origin), codec.names.number(str(message.dataset))
        if isinstance(message, m.FilesLost):
            row = _WORD.pack(_LOSS, life, dataset, 0, 0, origin.at_ms)
            names = [codec.file(lfn) for lfn in message.lfns]
            for number, name in enumerate(names):
                self._rows.put(_word_key(name, where, number), row)
            self._touch(names)
            return
        manifest = b"" if message.manifest is None else codec.manifest(message.manifest)
        names = [codec.file(file.lfn) for file in message.files]
        for number, file in enumerate(message.files):
            row = _WORD.pack(0, life, dataset, file.bytes, int(file.adler32, 16), origin.at_ms) + manifest
            self._rows.put(_word_key(names[number], where, number), row)
        self._touch(names)
        if not manifest:
            self._rows.put(REGISTRATION + where, _REGISTERED.pack(life, dataset))
            if self.registered is not None:
                self.registered.add(REGISTRATION + where)
                if len(self.registered) > TOUCHED_MAX:
                    self.registered = None

    def bring(self, place: LogPosition, at_ms: int, content: int, manifest: ManifestId, words: Told) -> None:
        """A manifest as it was heard; `words`: of its fact."""
        codec, self._found = self._codec, None
        self._rows.put(
            MANIFEST + _NAME.pack(content) + codec.place(place), _WRITTEN.pack(at_ms) + codec.manifest(manifest)
        )
        *_, in_entries, names, sizes, adlers, _lengths, lfns, lacking, first, further, _ = words[WORDS_AT:]
        targets, its_sizes, its_adlers = array("Q", names), array("Q", sizes), array("q", adlers)
        read = array("Q", lfns) if lfns else targets
        self._touch({*targets, *read})
        held = Ranges([(0, len(targets))]) - Ranges(lacking)
        named = [
            (_HOLDER.pack(role, codec.names.number(site)), Ranges(spans))
            for role, some in ((_FIRST, first), (_FURTHER, further))
            for site, spans in some
        ]
        for item in held.numbers():
            flags = _WHOLE * (read[item] == targets[item]) | _ENTRIES * in_entries
            holders = b"".join([holder for holder, items in named if item in items])
            row = _ITEM.pack(flags, its_sizes[item], its_adlers[item]) + holders
            number = _ITEM_NO.pack(content, item)
            self._rows.put(FILE + _NAME.pack(read[item]) + _BROUGHT + number, row)
            if read[item] != targets[item]:
                self._rows.put(FILE + _NAME.pack(targets[item]) + _TARGET + number, row[: _ITEM.size])

    def _touch(self, names: Iterable[int]) -> None:
        if self.touched is not None:
            self.touched.update(names)
            if len(self.touched) > TOUCHED_MAX:
                self.touched = None

    # a file at a time

    def asked(self, read: Collection[Site]) -> Iterator[PartitionId]:
        """Partitions to be read once more for the names of files with two contents. `read`: sites that were read."""
        self._asked, self._lfns = {}, {}
        self._found = self._look(read)
        for name, *words in self._found.conflicts:
            for word in words:
                self._asked.setdefault(word.place, []).append((word.file, name))
        yield from {place[:3] for place in self._asked}

    def locate(self, place: LogPosition, message: Callable[[], m.Message | None]) -> None:
        files = self._asked.get(place)
        found = message() if files else None
        if isinstance(found, m.FilesHeld):
            for file, name in files or ():
                self._lfns[name] = found.files[file].lfn

    def _look(self, read: Collection[Site]) -> _Found:
        found = _Found()
        blamed: set[int] = set()
        for packed, rows in self._to_look_at():
            before = found.faults
            words: list[Word] = []
            brought: list[Brought] = []
            in_entries: list[int] = []
            for key, row in rows:
                kind = key[_NAME_END : _NAME_END + 1]
                if kind == FILE_WORD:
                    words.append(self._word(key, row))
                elif kind == _BROUGHT:
                    brought.append(self._brought(key, row))
                elif row[0] & _ENTRIES:
                    in_entries.append(_ITEM_NO.unpack_from(key, _NAME_END + 1)[0])
            (name,) = _NAME.unpack(packed)
            in_entries += [one.content for one in brought if one.in_entries]
            if words:
                found.names += 1
                self._compare(name, words, in_entries, read, found)
                self._given_up(words, found)
            for one in brought:
                self._holders(one, words, read, found)
            if found.faults > before and len(blamed) < FINDINGS_MAX:
                blamed.add(name)
        if self._live:
            self.touched = blamed
        return found

    def _to_look_at(self) -> Iterator[tuple[bytes, Iterator[tuple[bytes, bytes]]]]:
        """Names (hashes, as rows have them) with their rows."""
        if self.touched is None:
            yield from groupby(self._rows.scan(FILE), key=lambda row: row[0][len(FILE) : _NAME_END])
            return
        for name in sorted(self.touched):
            packed = _NAME.pack(name)
            yield packed, self._rows.scan(FILE + packed)

    def _word(self, key: bytes, row: bytes) -> Word:
        at = _NAME_END + 1
        place = self._codec.place_of(key[at : at + PLACE_BYTES])
        (file,) = _FILE_NO.unpack_from(key, at + PLACE_BYTES)
        flags, life, dataset, size, adler, at_ms = _WORD.unpack_from(row)
        return Word(place, file, bool(flags & _LOSS), life, dataset, size, adler, at_ms, row[_WORD.size :])

    def _brought(self, key: bytes, row: bytes) -> Brought:
        content, item = _ITEM_NO.unpack_from(key, _NAME_END + 1)
        flags, size, adler = _ITEM.unpack_from(row)
        holders = tuple((role, self._codec.site(site)) for role, site in _HOLDER.iter_unpack(row[_ITEM.size :]))
        return Brought(content, item, bool(flags & _WHOLE), bool(flags & _ENTRIES), size, adler, holders)

    def _compare(
        self, name: int, words: list[Word], in_entries: list[int], read: Collection[Site], found: _Found
    ) -> None:
        """Two contents of one name: of a site that a transfer says it replaced, or of two that stand."""
        if len(words) == 1:
            return
        last: dict[tuple[Site, int], Word] = {}
        for word in words:
            if not word.is_original and word.site in read:
                continue
            key = word.site, word.dataset
            before = last.get(key)
            if before is not None and before.content != word.content and self._replaces(before, word, in_entries):
                found.differ(name, before, word)
            last[key] = word
        standing = sorted((word for word in last.values() if not word.is_loss), key=lambda word: word.place.rank)
        other = next((word for word in standing[1:] if word.content != standing[0].content), None)
        if other is not None and not any(self._is_converted(word, in_entries) for word in standing):
            found.differ(name, standing[0], other)

    def _replaces(self, before: Word, word: Word, in_entries: list[int]) -> bool:
        """Whether a transfer says it gave a name another content than one before it: a name is given once."""
        if not before.manifest or not word.manifest or before.manifest == word.manifest:
            return False
        return not any(self._is_converted(one, in_entries) for one in (before, word))

    def _is_converted(self, word: Word, in_entries: list[int]) -> bool:
        """Whether a destination made these files from entries: two sites may write the same entries as other bytes."""
        return any(packed == word.manifest for content in in_entries for _, _, packed in self._written(content))

    def _written(self, content: int) -> list[tuple[LogPosition, int, bytes]]:
        """Where the manifest of this content stands, best place first; when it was written, and which it is."""
        prefix = MANIFEST + _NAME.pack(content)
        found = [
            (self._codec.place_of(key[len(prefix) :]), *_WRITTEN.unpack_from(row), row[_WRITTEN.size :])
            for key, row in self._rows.scan(prefix)
        ]
        return sorted(found, key=lambda one: one[0].rank)

    def _given_up(self, words: list[Word], found: _Found) -> None:
        for word in words:
            if not word.is_loss or not word.is_original:
                continue
            found.given_up[word.site] += word.file == 0
            if not any(
                not one.is_loss and one.is_original and one.site == word.site and one.dataset == word.dataset
                for one in words
                if one.place < word.place
            ):
                found.lose(word)

    def _holders(self, one: Brought, words: list[Word], read: Collection[Site], found: _Found) -> None:
        """Each item as the sites that are named said it of the file, ever."""
        for role, site in one.holders:
            if site not in read:
                continue
            said = [word for word in words if word.is_original and not word.is_loss and word.site == site]
            if not said:
                if (never := found.mismatch((one.content, site, role, True))) is not None:
                    never.add(one.item)
            elif one.is_whole and not any(word.content == (one.bytes, one.adler32) for word in said):
                # of a part the file's size is not the item's
                last = said[-1]
                why = (
                    f"{one.bytes} bytes and adler32 {one.adler32:08x}, {_ROLES[role]} {site} said {last.size} "
                    f"and {last.adler32:08x}"
                )
                if (other := found.mismatch((one.content, site, role, False))) is not None:
                    other.add(one.item, why, last)

    # what others ask

    def said_of(self, lfn: str) -> tuple[list[Word], list[Brought]]:
        """What sites said of a file, and which items of manifests are, or land as, it."""
        words: list[Word] = []
        brought: dict[tuple[int, int], Brought] = {}
        for key, row in self._rows.scan(FILE + _NAME.pack(self._codec.file(lfn))):
            if key[_NAME_END : _NAME_END + 1] == FILE_WORD:
                words.append(self._word(key, row))
            else:
                one = self._brought(key, row)
                brought[one.content, one.item] = one
        return words, list(brought.values())

    def manifest_of(self, content: int) -> ManifestId | None:
        """The manifest of these bytes (a hash)."""
        written = self._written(content)
        return self._codec.manifest_of(written[0][2]) if written else None

    def has(self, site: Site, name: int, manifest: ManifestId) -> bool:
        """Whether the site says that it holds the name by another record than those of this transfer."""
        mine = self._codec.manifest(manifest)
        prefix = FILE + _NAME.pack(name) + FILE_WORD
        said = (self._word(key, row) for key, row in self._rows.scan(prefix))
        return any(w.is_original and not w.is_loss and w.site == site and w.manifest != mine for w in said)

    def bringing(self, name: int) -> set[tuple[ManifestId, int]]:
        """Manifests and items that land under a name (a hash)."""
        found: set[tuple[ManifestId, int]] = set()
        for kind in (_BROUGHT, _TARGET):
            for key, row in self._rows.scan(FILE + _NAME.pack(name) + kind):
                if kind == _TARGET or row[0] & _WHOLE:
                    content, item = _ITEM_NO.unpack_from(key, _NAME_END + 1)
                    found |= {(self._codec.manifest_of(packed), item) for _, _, packed in self._written(content)}
        return found

    # verdicts

    def judge(self, sites: Collection[Site], roles: Mapping[tuple[Site, str], str], findings: FindingList) -> None:
        """`sites`: whose journals were all read whole. `roles`: of incarnations that announced one."""
        found = self._look(sites) if self._found is None else self._found
        findings.check(_I4, found.names)
        for name, *words in found.conflicts:
            if any(findings.past(word.at_ms) >= findings.began_ms for word in words):
                findings.wait(_I4, "written while the audit was reading")  # what gave up the other may not be read
                continue
            one, other = words
            lfn = self._lfns.get(name) or "a file"
            told = f"{lfn} has two contents: {self._told(one)}, and {self._told(other)}"
            findings.find(_I4, told, one.place, other.place)
        if found.more_conflicts:
            findings.find(_I4, f"{found.more_conflicts} more files have two contents")
        self._judge_losses(sites, found, findings)
        self._judge_registrations(sites, roles, findings)
        self._judge_mismatches(sites, found, findings)

    def _told(self, word: Word) -> str:
        size, adler = word.content
        dataset = self._codec.names.name(word.dataset)
        return f"{size} bytes with adler32 {adler:08x} at {word.site} in {dataset}"

    def _judge_losses(self, sites: Collection[Site], found: _Found, findings: FindingList) -> None:
        for site, count in found.given_up.items():
            findings.check(_I2, count if site in sites else 0)
        for word in found.losses:
            if word.site in sites:
                dataset = self._codec.names.name(word.dataset)
                words = f"{word.site} gives up file {word.file} of its FilesLost of {dataset}, which it never held"
                findings.find(_I2, words, word.place)
        if found.more_losses:
            findings.find(_I2, f"{found.more_losses} more files are given up that were never held")

    def _judge_registrations(
        self, sites: Collection[Site], roles: Mapping[tuple[Site, str], str], findings: FindingList
    ) -> None:
        """Nobody but who registers says that files are held which no transfer brought."""
        prefixes = [REGISTRATION] if self.registered is None else sorted(self.registered)
        if self._live:
            self.registered = set()
        for key, row in chain.from_iterable(map(self._rows.scan, prefixes)):
            place = self._codec.place_of(key[len(REGISTRATION) :])
            if place.site not in sites or "." in place.topic:
                continue
            findings.check(_I2)
            life, dataset = _REGISTERED.unpack(row)
            role = roles.get((place.site, self._codec.life_of(life)[0]))
            is_due = role is None or role in _NEVER_REGISTER  # who wrote it may be told later; what is found stays so
            if self._live and self.registered is not None and is_due and len(self.registered) < FINDINGS_MAX:
                self.registered.add(key)
            if role in _NEVER_REGISTER:
                words = (
                    f"a {role} of {place.site} says it holds files of {self._codec.names.name(dataset)} that no "
                    "transfer brought: only who registers says so"
                )
                findings.find(_I2, words, place)

    def _judge_mismatches(self, sites: Collection[Site], found: _Found, findings: FindingList) -> None:
        """A finding for the first item of each kind, with the count."""
        for (content, holder, role, is_never), items in found.mismatches.items():
            if holder not in sites:
                continue
            written = self._written(content)
            if not written:  # of a record that is to be read again
                continue
            place, at_ms, packed = written[0]
            manifest = self._codec.manifest_of(packed)
            more = f" (and {items.items - 1} more items)" if items.items > 1 else ""
            if is_never:
                words = (
                    f"{manifest} names {holder} as {_ROLES[role]} of item {items.first}{more}, "
                    "which never said it held it"
                )
                findings.miss(_I2, words, at_ms, place)
            else:
                words = f"item {items.first} of {manifest}{more} has {items.why}"
                findings.miss(_I2, words, at_ms, place, None if items.word is None else items.word.place)
        if found.more_mismatches:
            words = f"{found.more_mismatches} more items are named as held by who did not say so"
            findings.find(_I2, words)


def _word_key(name: int, place: bytes, number: int) -> bytes:
    return FILE + _NAME.pack(name) + FILE_WORD + place + _FILE_NO.pack(number)

"""Records of replicas: which files a site holds, and which it lost."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, Lfn, ManifestId, Site
from streams.core.records import field_checks
from streams.core.records.limits import FILES_MAX, WORDS_MAX
from streams.core.records.registry import record
from streams.core.records.sites import Origin
from streams.core.records.values import Reason


@dataclass(frozen=True, slots=True)
class HeldFile:
    lfn: Lfn
    block: Block
    bytes: int
    adler32: Adler32
    version: str
    part_of: Lfn | None = None
    selection: str | None = None


def _held(h: FilesHeld) -> str | None:
    prefix = h.dataset + "#"
    strange = next((n for n, f in enumerate(h.files) if not f.block.startswith(prefix)), None)
    if strange is not None:
        return f"files[{strange}].block: not of the record's dataset"
    why = field_checks.endpoint("endpoint", h.endpoint)
    if why is None and h.word:
        why = field_checks.word("word", h.word)
    if why is None and h.word and h.manifest is not None:
        why = "word: of a registration only; that of a landing is its manifest"
    return why or field_checks.some("files", (f.lfn for f in h.files), FILES_MAX)


@record(topic=topics.REPLICAS, key=lambda r: r.dataset, author=lambda r: r.site, check=_held)
@dataclass(frozen=True, slots=True)
class FilesHeld:
    """Replicas at `site`; `manifest` names the transfer that brought them, none for a registration.

    `endpoint`: where, "" the site's default. `owner`: who registered them, "" of what landed and of before. `word`: by
    which a loss takes this back (`word_of`), "" where the manifest or the record's origin is one.
    """

    dataset: Dataset
    site: Site
    files: tuple[HeldFile, ...]
    manifest: ManifestId | None = None
    endpoint: str = ""
    owner: str = ""
    word: str = ""


def word_of(held: FilesHeld, origin: Origin) -> str:
    """What says that the files are there: every landing's and every registration's is another."""
    return held.word or held.manifest or f"{origin.incarnation}/{origin.seq}"


@dataclass(frozen=True, slots=True)
class TakenWords:
    """Words of one file that a loss takes back."""

    words: tuple[str, ...]


def _lost(lost: FilesLost) -> str | None:
    why = field_checks.some("lfns", lost.lfns, FILES_MAX) or field_checks.endpoint("endpoint", lost.endpoint)
    if why is None and lost.taken and len(lost.taken) != len(lost.lfns):
        why = f"taken: {len(lost.taken)} given, of {len(lost.lfns)} lfns"
    for n, one in enumerate(lost.taken):
        why = why or field_checks.words(f"taken[{n}].words", one.words, WORDS_MAX)
    if why is None and lost.removal_sha256:
        why = field_checks.sha256("removal_sha256", lost.removal_sha256)
        if why is None and not lost.taken:
            why = "removal_sha256: without the words that it takes back"
    return why


@record(topic=topics.REPLICAS, key=lambda r: r.dataset, author=lambda r: r.site, check=_lost)
@dataclass(frozen=True, slots=True)
class FilesLost:
    """Files that `site` holds no more at `endpoint`.

    `taken`: one for each of `lfns`, the words that are taken back; none, as of before, takes back all that the site
    said of them earlier in this journal. `removal_sha256`: the RemovalDecided that this ends, "" of an accident. A
    digest and no number, for a broker that was put back may give a number twice.
    """

    dataset: Dataset
    site: Site
    lfns: tuple[Lfn, ...]
    reason: Reason
    endpoint: str = ""
    taken: tuple[TakenWords, ...] = ()
    removal_sha256: str = ""

"""Records of replicas: which files a site holds, and which it lost."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, Lfn, ManifestId, Site
from streams.core.records import field_checks
from streams.core.records.limits import FILES_MAX
from streams.core.records.registry import record
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
    return field_checks.some("files", (f.lfn for f in h.files), FILES_MAX)


@record(topic=topics.REPLICAS, key=lambda r: r.dataset, author=lambda r: r.site, check=_held)
@dataclass(frozen=True, slots=True)
class FilesHeld:
    """Replicas at `site`; `manifest` names the transfer that brought them, none for a registration."""

    dataset: Dataset
    site: Site
    files: tuple[HeldFile, ...]
    manifest: ManifestId | None = None


@record(
    topic=topics.REPLICAS,
    key=lambda r: r.dataset,
    author=lambda r: r.site,
    check=lambda lost: field_checks.some("lfns", lost.lfns, FILES_MAX),
)
@dataclass(frozen=True, slots=True)
class FilesLost:
    dataset: Dataset
    site: Site
    lfns: tuple[Lfn, ...]
    reason: Reason

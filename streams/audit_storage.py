"""I2 on disk: what completions call sealed is read back under its final name, with its size and adler32. Read-only.

Manifests are read a second time, so that no list of a million files is ever kept. A site's storage is looked for where
its own site.toml says, if that file is here; other sites' disks are "not checkable from here".
"""

from __future__ import annotations

import tomllib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from streams import waits, wire
from streams.core import messages as m
from streams.core.ledger import Docket, Invariant, Ledger
from streams.core.manifest import digest
from streams.core.names import ManifestId, Site
from streams.core.ranges import Ranges
from streams.core.stores import BASE, Store
from streams.core.topics import MANIFESTS, remote
from streams.errors import StorageError, Transfer2goError, WireError
from streams.kafka.replay import replay
from streams.settings import Settings, load_settings
from streams.storage import open_endpoint
from streams.storage.endpoint import Endpoint, FileMissing

_I2 = Invariant.NO_LIE
_REMEMBERED = 10_000
"""Files whose checksum is kept, since several intents may bring the same one."""


@dataclass(frozen=True, slots=True)
class StorageTally:
    """Files and bytes read back; sites whose storage is not reachable from here.

    `registered`: how many of the files were looked for because their site has registered them; None: none was to be.
    """

    files: int
    bytes: int
    unreachable: tuple[Site, ...]
    registered: int | None = None


def endpoint_url(settings: Settings, site: Site) -> str | None:
    """Where the storage of `site` is, as far as this machine knows."""
    if site == settings.site and settings.endpoint_url:
        return settings.endpoint_url
    path = settings.state / site / "site.toml"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("endpoint", {}).get("url")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def stores_of(settings: Settings, site: Site) -> tuple[Store, ...]:
    """The stores that `site` reads, as its own site.toml says. Raises what `load_settings` does."""
    if site == settings.site:
        return settings.stores
    found = load_settings(
        need_federation=False, environ={}, files=[], state=settings.state, sites=settings.sites_path, site=site
    )
    return found.stores


def check_completed(
    settings: Settings, disks: Disks, ledger: Ledger, read: Collection[Site], sites: Collection[Site], docket: Docket
) -> None:
    """Read back every sealed item at `sites`; faults go to `docket`. `read`: sites whose journals can be replayed."""
    for manifest in _manifests(settings, read, docket):
        for done, place in ledger.completed(manifest.manifest):
            site = done.destination
            if site not in sites or digest(manifest) != done.manifest_sha256:
                continue
            for n, item in _sealed(done, manifest.items):
                if ledger.is_lost(site.site, item.target):
                    docket.cannot(_I2, f"files that {site} has given up since")
                elif (fault := disks.fault(site.site, item.target, item.bytes, item.adler32)) is not None:
                    docket.find(_I2, f"item {n} of {manifest.manifest}: {item.target} at {site} {fault}", place)


def _sealed(done: m.CompletionRecord, items: tuple[m.Item, ...]) -> Iterator[tuple[int, m.Item]]:
    """(number, item) of what a completion calls sealed; of entries with the size and checksum of what landed."""
    became = {one.item: one for one in done.landed}
    # A completion that counts more items than the manifest has is found by the ledger.
    for n in (done.sealed & Ranges([(0, len(items))])).numbers():
        item = items[n]
        file = became.get(n)
        yield n, item if file is None else replace(item, bytes=file.bytes, adler32=file.adler32)


def _manifests(settings: Settings, read: Collection[Site], docket: Docket) -> Iterator[m.ManifestWritten]:
    """Every manifest once, from its source's own journal or, where that is not readable, from a copy."""
    seen: set[tuple[ManifestId, int]] = set()
    for source in settings.registry.names:
        here = source if source in read else next(iter(sorted(read)), None)
        if here is None:
            return
        topic = MANIFESTS if here == source else remote(source, MANIFESTS)
        try:
            for record in replay(settings, here, [topic]):
                try:
                    written = wire.decode(topic, record.key, record.value, record.headers, here).message
                except WireError:
                    continue  # The first reading has refused it already.
                assert isinstance(written, m.ManifestWritten)
                what = (written.manifest, hash(record.value))
                if what not in seen:
                    seen.add(what)
                    yield written
        except Transfer2goError as error:
            docket.cannot(_I2, f"manifests of {source}: {error}")


class Disks:
    """The endpoints that can be opened from here, and what was read there. `wait` says how far the reading is."""

    def __init__(self, settings: Settings, docket: Docket, wait: waits.Wait) -> None:
        self._settings, self._docket, self._wait = settings, docket, wait
        self._endpoints: dict[Site, Endpoint | None] = {}
        self._stores: dict[Site, tuple[Store, ...]] = {}
        self._read: OrderedDict[tuple[Site, str], tuple[int, str]] = OrderedDict()
        self.unreachable: set[Site] = set()
        self.files = self.bytes = 0

    def tally(self, registered: int | None) -> StorageTally:
        return StorageTally(self.files, self.bytes, tuple(sorted(self.unreachable)), registered)

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            if endpoint is not None:
                endpoint.close()

    def _endpoint(self, site: Site) -> Endpoint | None:
        if site not in self._endpoints:
            url = endpoint_url(self._settings, site)
            try:
                stores = self._stores[site] = stores_of(self._settings, site)
                self._endpoints[site] = None if url is None else open_endpoint(url, name=site, stores=stores)
            except Transfer2goError:
                self._endpoints[site] = None
        return self._endpoints[site]

    def fault(self, site: Site, lfn: str, size: int, adler32: str | None) -> str | None:
        """What is wrong with a file that should be whole at `site`, in words; None: nothing is, or nobody can say.

        Without `adler32` its size is not known either.
        """
        endpoint = self._endpoint(site)
        if endpoint is None:
            self.unreachable.add(site)
            self._docket.cannot(_I2, f"files at {site}: its storage is not reachable from here")
            return None
        is_key = lfn.startswith(BASE)
        try:
            found_bytes, found_adler32 = self._look(endpoint, site, lfn)
        except FileMissing:
            if is_key and not any(one.holds(lfn) for one in self._stores.get(site, ())):
                self._docket.cannot(_I2, f"keys at {site} of a store that is not known here")
                return None
            self._docket.check(_I2)
            return "is not there"
        except StorageError as error:
            # On a disk what is permanent stands in the file's place: a directory, a link in a circle.
            if error.failure_class == "data-bad" or (error.failure_class == "permanent" and not is_key):
                self._docket.check(_I2)
                return f"cannot be read whole: {error}"
            self.unreachable.add(site)
            self._docket.cannot(_I2, f"files at {site} that could not be read: {error.failure_class}, {error.what}")
            return None
        self._docket.check(_I2)
        if adler32 is not None and found_bytes != size:
            return f"has {found_bytes} bytes, not {size}"
        if adler32 is not None and found_adler32 != adler32:
            return f"has adler32 {found_adler32}, not {adler32}"
        return None

    def _look(self, endpoint: Endpoint, site: Site, lfn: str) -> tuple[int, str]:
        self._wait.what = f"files at {site} to be read back ({self.files:,}, {self.bytes / 1e9:,.1f} GB so far)"
        known = self._read.get((site, lfn))
        if known is None:
            stat = endpoint.stat(lfn)
            known = self._read[site, lfn] = (stat.bytes, endpoint.checksum(lfn, stat.version))
            self.files += 1
            self.bytes += stat.bytes
            if len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
        return known

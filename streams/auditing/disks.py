"""The disks of an audit: storages that can be opened from here, and what is wrong with a file there. Read-only.

A site's storage is looked for where its own site.toml says, if that file is here; other sites' disks are "not
checkable from here".
"""

from __future__ import annotations

import tomllib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from streams import waits
from streams.core.endpoint_config import DEFAULT_ENDPOINT, EndpointConfig
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.names import Site
from streams.core.store_names import BASE, Store
from streams.errors import StorageError, Transfer2goError
from streams.settings import Settings, load_settings
from streams.storage import open_named
from streams.storage.endpoint import Endpoint, FileMissing, FileStat, ReadableStorage

_I2 = Invariant.NO_LIE
_REMEMBERED = 10_000
"""Files whose checksum is kept, since several datasets may have the same one."""


class Look(NamedTuple):
    """What is wrong with a file, in words, "" if nothing is or nobody can say; the version seen, "" if none was.

    `gone`: nothing is there.
    """

    fault: str
    version: str = ""
    gone: bool = False


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


def config_of(settings: Settings, site: Site) -> EndpointConfig:
    """How the files of `site` lie and what it reads beside them. Raises what `load_settings` does."""
    if site != settings.site:
        settings = load_settings(
            need_federation=False, environ={}, files=[], state=settings.state, sites=settings.sites_path, site=site
        )
    return settings.endpoints[DEFAULT_ENDPOINT]


def disks_reachable(settings: Settings, sites: Iterable[Site]) -> list[Site]:
    """Those of `sites` whose storage can be opened from here."""
    found = []
    for site in sites:
        endpoint = _opened(settings, site, EndpointConfig(DEFAULT_ENDPOINT, ""))
        if endpoint is not None:
            endpoint.close()
            found.append(site)
    return found


def _opened(settings: Settings, site: Site, config: EndpointConfig) -> Endpoint | None:
    url = endpoint_url(settings, site)
    try:
        return None if url is None else open_named({config.name: replace(config, url=url)}, config.name, called=site)
    except Transfer2goError:
        return None


class Disks:
    """The endpoints that can be opened from here, and what was read there. `wait` says how far the reading is."""

    def __init__(self, settings: Settings, findings: FindingList, wait: waits.Wait) -> None:
        self._settings, self._findings, self._wait = settings, findings, wait
        self._endpoints: dict[Site, Endpoint | None] = {}
        self._stores: dict[Site, tuple[Store, ...]] = {}
        self._read: OrderedDict[tuple[Site, str, str], str] = OrderedDict()
        self.unreachable: set[Site] = set()
        self.files = self.bytes = 0

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            if endpoint is not None:
                endpoint.close()

    def endpoint(self, site: Site) -> Endpoint | None:
        if site not in self._endpoints:
            try:
                config = config_of(self._settings, site)
                self._stores[site] = config.stores
                self._endpoints[site] = _opened(self._settings, site, config)
            except Transfer2goError:
                self._endpoints[site] = None
        return self._endpoints[site]

    def look(self, site: Site, lfn: str, size: int, adler32: str, *, contents: bool = True) -> Look:
        """At a file that should be whole at `site`; without `contents` at its existence and size only."""
        endpoint = self.endpoint(site)
        if endpoint is None:
            self.unreachable.add(site)
            self._findings.cannot(_I2, f"files at {site}: its storage is not reachable from here")
            return Look("")
        is_key = lfn.startswith(BASE)
        version = ""
        try:
            stat = endpoint.stat(lfn)
            version = stat.version
            found = self._checksum(endpoint, site, lfn, stat) if contents and stat.bytes == size else adler32
        except FileMissing:
            if is_key and not any(one.holds(lfn) for one in self._stores.get(site, ())):
                self._findings.cannot(_I2, f"keys at {site} of a store that is not known here")
                return Look("")
            self._findings.check(_I2)
            return Look("is not there", gone=True)
        except StorageError as error:
            # On a disk what is permanent stands in the file's place: a directory, a link in a circle.
            if error.failure_class == "data-bad" or (error.failure_class == "permanent" and not is_key):
                self._findings.check(_I2)
                return Look(f"cannot be read whole: {error}", version)
            self.unreachable.add(site)
            self._findings.cannot(_I2, f"files at {site} that could not be read: {error.failure_class}, {error.what}")
            return Look("", version)
        self._findings.check(_I2)
        if stat.bytes != size:
            return Look(f"has {stat.bytes} bytes, not {size}", version)
        return Look("" if found == adler32 else f"has adler32 {found}, not {adler32}", version)

    def _checksum(self, endpoint: ReadableStorage, site: Site, lfn: str, stat: FileStat) -> str:
        self._wait.what = f"files at {site} to be read back ({self.files:,}, {self.bytes / 1e9:,.1f} GB so far)"
        known = self._read.get((site, lfn, stat.version))
        if known is None:
            known = self._read[site, lfn, stat.version] = endpoint.checksum(lfn, stat.version)
            self.files += 1
            self.bytes += stat.bytes
            if len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
        return known

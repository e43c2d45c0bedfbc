"""The source's side where others give the bytes: a URL of each item, of a door of another make or of a store.

What is offered was looked at: a file is there, as the version that was asked for, or it is named as failed. Whether
what is fetched by URL is the file, only the destination finds out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from streams.core.ranges import Ranges
from streams.core.records import (
    READS_URLS,
    ChunksRequested,
    FailedItems,
    ItemUrl,
    RequestedItem,
    Scope,
    UrlsOffered,
    field_checks,
)
from streams.core.store_names import Store
from streams.core.transfer import merge_failed
from streams.doors.tickets import LIFE_S
from streams.doors.tokens import token_in
from streams.errors import StorageError, data_bad
from streams.planes.reasons import reason_of
from streams.settings import Settings
from streams.settings.doors import HttpDoor
from streams.storage.endpoint import ReadableStorage

OFFER_BYTES = 384 * 1024
"""Of URLs in one offer: well under what a record may have."""


class UrlOffers:
    """For one thread."""

    def __init__(self, settings: Settings, storage: ReadableStorage) -> None:
        self._settings, self._storage = settings, storage

    @property
    def address(self) -> str:
        """What the site announces where no plane of it has a door; "" where nothing is given by URL.

        It ends with a slash, which no address of a door of this product does.
        """
        doors = self._settings.http_doors
        if doors:
            return doors[0].url
        store = next((store for store in self._settings.stores if store.direct), None)
        url = "" if store is None else f"{store.url.rstrip('/')}/"
        return url if field_checks.is_http(url) else ""

    def of(self, request: ChunksRequested, until_ms: int, *, is_landing: bool) -> list[UrlsOffered] | None:
        """Offers of all that is asked for; None where something of it is not given by URL, or cannot be asked for so.

        `is_landing`: what is asked of no version may still be on its way here, and others know nothing of that.
        StorageError where nothing can be offered now.
        """
        if request.capability != READS_URLS or any(item.selection for item in request.items):
            return None
        if is_landing and not all(item.version for item in request.items):
            return None
        door = self._door(request.request_no)
        if not all(self._is_given(item, door) for item in request.items):
            return None
        by_door, by_store = list[tuple[RequestedItem, ItemUrl]](), list[tuple[RequestedItem, ItemUrl]]()
        failed: list[FailedItems] = []
        for item in request.items:
            is_key = self._store(item) is not None
            try:
                url = self._of_key(item) if is_key or door is None else self._of_file(item, door)
            except StorageError as error:
                if error.failure_class == "auth":
                    raise
                failed.append(FailedItems(Ranges.of(item.no), reason_of(error, "read", Scope.SOURCE)))
                continue
            if url is None:
                return None
            (by_store if is_key else by_door).append((item, url))
        named = (request.manifest, request.destination, self._settings.here, request.request_no)
        offers: list[UrlsOffered] = []
        for urls, theirs in ((by_door, door), (by_store, None)):  # a door's token is for its own hosts
            token = token_in(theirs.token_file, theirs.name) if theirs is not None and urls else ""
            redirects = theirs.redirects if theirs is not None else ()
            for part in _parts(urls):
                ranges = request.ranges & _positions([item for item, _ in part])
                if ranges:
                    given = tuple(url for _, url in part)
                    offers.append(UrlsOffered(*named, ranges, until_ms, given, token, redirects))
        if failures := merge_failed(failed):
            gone = {no for group in failures for no in group.items.numbers()}
            ranges = request.ranges & _positions([item for item in request.items if item.no in gone])
            offers.append(UrlsOffered(*named, ranges, until_ms, (), failed=failures))
        return offers

    def _door(self, request_no: int) -> HttpDoor | None:
        """Each request has another: what one does not give the next may."""
        doors = self._settings.http_doors
        return doors[request_no % len(doors)] if doors else None

    def _is_given(self, item: RequestedItem, door: HttpDoor | None) -> bool:
        """Whether it is given by URL at all: of a key its store says so, of a file that there is a door."""
        store = self._store(item)
        return door is not None if store is None else store.direct

    def _store(self, item: RequestedItem) -> Store | None:
        return next((store for store in self._settings.stores if store.holds(item.lfn)), None)

    def _of_key(self, item: RequestedItem) -> ItemUrl | None:
        """None where there is none. StorageError where it cannot be what was asked for."""
        if not item.version:  # its store would have to be asked for each
            return None
        given = self._storage.url_of(item.lfn, item.version, int(LIFE_S))
        if given is None:
            return None
        _require(given.bytes, item)
        return _told(item, given.url, given.etag)

    def _of_file(self, item: RequestedItem, door: HttpDoor) -> ItemUrl | None:
        """The same. StorageError where it is not there as it was asked for."""
        with self._storage.open_reader(item.lfn, item.version or None) as reader:
            _require(reader.stat.bytes, item)
        return _told(item, door.url + quote(self._storage.path_of(item.lfn), safe="/"), "")


def _told(item: RequestedItem, url: str, etag: str) -> ItemUrl | None:
    """None for what the gate would not pass."""
    return ItemUrl(item.no, url, etag) if field_checks.is_url(url) and field_checks.is_etag(etag) else None


def _require(size: int, item: RequestedItem) -> None:
    if size != item.length:
        what = f"the file has {size:,} bytes where {item.length:,} were registered"
        raise data_bad(what, item.lfn, "register it again")


def _positions(items: Sequence[RequestedItem]) -> Ranges:
    return Ranges((item.start, item.start + item.length) for item in items)


def _parts(urls: list[tuple[RequestedItem, ItemUrl]]) -> Iterator[list[tuple[RequestedItem, ItemUrl]]]:
    """So many together as one offer has room for."""
    part: list[tuple[RequestedItem, ItemUrl]] = []
    size = 0
    for one in urls:
        bytes_of = len(one[1].url) + len(one[1].etag) + 16
        if part and size + bytes_of > OFFER_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += bytes_of
    if part:
        yield part

"""Asking an S3-compatible store over HTTP: requests signed, answers checked, every failure with a class and in words.

It lists keys and reads ranges, and never writes. What is made of a range is s3.py's. An error names the store and its
error code; no address, credential or other text of its answer.

An attempt (one answer, tried again while that may help) takes ATTEMPT_S at most, and as long as its bytes take at
SLOWEST_BYTES_S; then it fails as transient. A name that does not resolve takes as long as the system's resolver does.
"""

from __future__ import annotations

import configparser
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, NewConnectionError, SSLError, TimeoutError

from streams import waits
from streams.core.names import shown
from streams.core.store_names import Store
from streams.errors import StorageError
from streams.storage.attempts import Breaker, trials
from streams.storage.deadlines import Deadlines
from streams.storage.endpoint import FileMissing
from streams.storage.s3_signing import Keys, presigned, query_of, quoted, signed

CONNECTIONS = 16
CONNECT_S = 5.0
READ_S = 10.0
"""Without a byte."""
ATTEMPT_S = 15.0
"""Until an answer begins, all tries together: less than a lease, so that who asked hears why before it ends."""
SLOWEST_BYTES_S = 64 << 10
TRIES = 3
AWAY_S = 3.0
"""So long after a store was found away it is not asked again: each item of a request would wait for it anew."""
PAGE_BYTES_MAX = 16 << 20
_ERROR_BYTES = 64 << 10
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_XML_REFERENCE = re.compile(r"&#([xX][0-9a-fA-F]{1,8}|[0-9]{1,8});")
_SIZE_DIGITS_MAX = 15
_NEVER = float("inf")
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "UNKNOWN_PROTOCOL"}
_AUTH = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed", "AccessDenied"}


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """A key as the store lists it; `etag` without quotes, -1 `bytes` where it tells no size."""

    name: str
    bytes: int
    etag: str


class KeyChanged(StorageError):
    """It is another version than the one asked for (data-bad)."""


class S3Client:
    """Thread-safe."""

    def __init__(self, store: Store) -> None:
        self.store = store
        parts = urlsplit(store.url)
        host = parts.netloc if store.path_style else f"{store.bucket}.{parts.netloc}"
        self._host, self._origin = host, f"{parts.scheme}://{host}"
        self._top = parts.path + (f"/{quoted(store.bucket)}" if store.path_style else "")
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            retries=False,
            ca_certs=store.ca_file or None,
        )
        self._deadlines = Deadlines(store.name)
        self._breaker = Breaker()
        self._keys: tuple[int, Keys] | None = None

    def close(self) -> None:
        self._deadlines.close()
        self._pool.clear()

    def head(self, key: str, lfn: str) -> ObjectKey:
        """What the key is now."""
        answer = self._ask("HEAD", key, lfn)
        answer.release_conn()
        length, etag = answer.headers.get("content-length", ""), answer.headers.get("etag", "")
        if not length.isdigit() or not etag:
            raise self._error("gives no size or no ETag", lfn, "permanent")
        return ObjectKey(key, int(length), etag.strip('"'))

    def size_now(self, key: str) -> int | None:
        """Of a key that has changed, for a reason in words: asked once; None where the store does not tell."""
        path = f"{self._top}/{quoted(key, '/')}"
        try:
            headers = self._signed("HEAD", path, "", {"host": self._host})
            timeout = urllib3.Timeout(connect=CONNECT_S, read=CONNECT_S)
            with waits.on(f"the store {self.store.name} to answer"):
                answer = self._pool.urlopen(
                    "HEAD", self._origin + path, headers=headers, redirect=False, timeout=timeout
                )
        except (HTTPError, StorageError):
            return None
        length = answer.headers.get("content-length", "")
        return int(length) if answer.status == 200 and length.isdigit() and len(length) <= _SIZE_DIGITS_MAX else None

    def read(self, key: str, lfn: str, start: int, stop: int, size: int, etag: str) -> bytes:
        """Bytes [start, stop) of a key of `size` bytes and just this ETag."""
        headers = {"range": f"bytes={start}-{stop - 1}"}
        if not etag.startswith("W/"):
            headers["if-match"] = f'"{etag}"'
        until = monotonic() + ATTEMPT_S + (stop - start) / SLOWEST_BYTES_S
        failure = self._error("ended its answer early", lfn, "transient")
        for _ in range(TRIES):
            if monotonic() >= until:
                break
            answer = self._ask("GET", key, lfn, headers, until=until)
            try:
                self._require_version(answer, lfn, start, stop, size, etag)
                with waits.on(f"the store {self.store.name} to send {lfn or key}"):
                    content = self._content(answer, lfn, stop - start, until)
                if len(content) == stop - start:
                    return content
                answer.close()
            except HTTPError as error:
                answer.close()
                failure = self._gone(error, lfn)
                if isinstance(error, TimeoutError):
                    self._breaker.failed(failure, AWAY_S)
            finally:
                answer.release_conn()
        raise failure

    def url_of(self, key: str, etag: str, life_s: int) -> str:
        """Where anybody may GET the key for `life_s` seconds, on condition of this ETag. Asks nobody."""
        path = f"{self._top}/{quoted(key, '/')}"
        keys = self._credentials()
        if keys is None:
            return self._origin + path
        headers = {"host": self._host, "if-match": f'"{etag}"'}
        query = presigned(keys, self.store.region, path, headers, datetime.now(UTC), life_s)
        return f"{self._origin}{path}?{query}"

    def keys(self, begins: str) -> Iterator[ObjectKey]:
        """All keys that begin so (the store's prefix included), page by page."""
        asked = {"list-type": "2", "encoding-type": "url", "prefix": begins}
        seen = 0
        while True:
            with waits.on(f"the store {self.store.name} to list its keys ({seen:,} so far)"):
                page = self._page(asked)
            encoded = page.findtext("{*}EncodingType") == "url"
            sized = unsized = 0
            for row in page.iterfind("{*}Contents"):
                raw, size, etag = row.findtext("{*}Key") or "", row.findtext("{*}Size"), row.findtext("{*}ETag")
                name = unquote_plus(raw, errors="surrogateescape") if encoded else raw
                known = size is not None and size.isascii() and size.isdecimal() and len(size) <= _SIZE_DIGITS_MAX
                seen, sized, unsized = seen + 1, sized + known, unsized + (not known)
                yield ObjectKey(name, int(size or 0) if known else -1, (etag or "").strip('"'))
            if unsized and not sized:
                raise self._error("lists keys without their sizes", "", "permanent")
            if page.findtext("{*}IsTruncated") != "true":
                return
            behind = page.findtext("{*}NextContinuationToken")
            if not behind or behind == asked.get("continuation-token"):
                raise self._error("cuts its list and does not say where it goes on", "", "permanent")
            asked["continuation-token"] = behind

    def _page(self, asked: Mapping[str, str]) -> ElementTree.Element:
        answer = self._ask("GET", None, "", query=query_of(asked))
        try:
            until = monotonic() + ATTEMPT_S + PAGE_BYTES_MAX / SLOWEST_BYTES_S
            content = self._content(answer, "", PAGE_BYTES_MAX + 1, until)
            if len(content) > PAGE_BYTES_MAX:
                raise self._error("lists keys without end", "", "permanent")
            return _parsed(content)
        except HTTPError as error:
            raise self._gone(error, "") from error
        except ElementTree.ParseError as error:
            raise self._error("answers with no list of keys", "", "permanent", self._check) from error
        finally:
            answer.release_conn()

    # one request

    def _ask(
        self,
        method: str,
        key: str | None,
        lfn: str,
        headers: Mapping[str, str] | None = None,
        query: str = "",
        until: float = _NEVER,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, its body unread, if it is a good one. Tried again while that may help, ATTEMPT_S at most."""
        self._breaker.check(lfn)
        path = self._top + ("/" if key is None else f"/{quoted(key, '/')}")
        until = min(until, monotonic() + ATTEMPT_S)
        with waits.on(f"the store {self.store.name} to answer"):
            for left_s in trials(TRIES, until):
                try:
                    answer = self._pool.urlopen(
                        method,
                        self._origin + path + (f"?{query}" if query else ""),
                        headers=self._signed(method, path, query, {"host": self._host, **(headers or {})}),
                        preload_content=False,
                        redirect=False,
                        timeout=urllib3.Timeout(connect=min(CONNECT_S, left_s), read=min(READ_S, left_s)),
                    )
                    if answer.status < 300:
                        self._breaker.worked()
                        return answer
                    failure = self._refused(answer, lfn)
                except HTTPError as error:
                    failure = self._gone(error, lfn)
                    if isinstance(error, SSLError) and failure.failure_class != "transient":
                        break  # another key finds the same
                if failure.failure_class != "transient":
                    raise failure
        self._breaker.failed(failure, AWAY_S)
        raise failure

    def _content(self, answer: urllib3.BaseHTTPResponse, lfn: str, most: int, until: float) -> bytes:
        """At most so many bytes of the body. StorageError when they come too slowly."""
        try:
            with self._deadlines.of(answer, until):
                content = answer.read(most, decode_content=False)
        except HTTPError:
            if monotonic() < until:
                raise
            content = b""
        if monotonic() >= until and len(content) < most:
            answer.close()
            failure = self._error("sends too slowly", lfn, "transient")
            self._breaker.failed(failure, AWAY_S)
            raise failure
        return content

    def _signed(self, method: str, path: str, query: str, headers: dict[str, str]) -> dict[str, str]:
        keys = self._credentials()
        if keys is None:
            return headers
        return signed(keys, self.store.region, method, path, query, headers, datetime.now(UTC))

    def _credentials(self) -> Keys | None:
        store = self.store
        if store.access_key_id:
            return Keys(store.access_key_id, store.secret_access_key, store.session_token)
        if not store.credentials_file:
            return None
        try:
            changed_ns = os.stat(store.credentials_file).st_mtime_ns
            if self._keys is None or self._keys[0] != changed_ns:
                found = configparser.ConfigParser(interpolation=None)
                with open(store.credentials_file, encoding="utf-8") as file:
                    found.read_file(file)
                mine = found[store.profile]
                keys = Keys(mine["aws_access_key_id"], mine["aws_secret_access_key"], mine.get("aws_session_token", ""))
                self._keys = changed_ns, keys
        except (OSError, ValueError, KeyError, configparser.Error) as error:
            what = f"has credentials that cannot be read: {type(error).__name__}"
            raise self._error(what, "", "auth", f"check its credentials_file and profile {store.profile}") from None
        return self._keys[1]

    # what goes wrong

    @property
    def _check(self) -> str:
        return f"check url, region and path_style of [stores.{self.store.name}]"

    def _error(self, what: str, lfn: str, failure_class: str, then: str = "") -> StorageError:
        return StorageError(f"the store {self.store.name} {what}", lfn, then, failure_class=failure_class)

    def _gone(self, error: HTTPError, lfn: str) -> StorageError:
        if isinstance(error, SSLError):
            return self._untrusted(error.args[0] if error.args else error, lfn)
        if any(isinstance(cause, IncompleteRead) for cause in error.args):
            return self._error("ended its answer early", lfn, "transient")
        why = "the connection broke"
        if isinstance(error, NewConnectionError):
            why = "no connection"
        elif isinstance(error, TimeoutError):
            why = f"no answer within {ATTEMPT_S:g} s"
        return self._error(f"cannot be reached: {why}", lfn, "transient")

    def _untrusted(self, cause: object, lfn: str) -> StorageError:
        """Why TLS failed. A refused certificate is refused again until somebody changes it, or what is trusted here."""
        trust = f"check ca_file and url of [stores.{self.store.name}]"
        if isinstance(cause, ssl.SSLCertVerificationError):
            # of a wrong name OpenSSL says ours, which is an address
            why = "it is for another host" if "mismatch" in cause.verify_message else cause.verify_message
            return self._error(f"is not trusted: its certificate is refused: {why}", lfn, "auth", trust)
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
            what = f"is not trusted: its ca_file cannot be read: {type(cause).__name__}"
            return self._error(what, lfn, "auth", trust)
        reason = str(getattr(cause, "reason", None) or "")
        if "CERTIFICATE" in reason:
            return self._error(f"refuses us in TLS: {shown(reason, 60)}", lfn, "auth", trust)
        if reason in _NO_TLS:
            return self._error(f"does not speak TLS as we do: {reason}", lfn, "permanent", self._check)
        return self._error("cannot be reached: TLS broke off", lfn, "transient")

    def _refused(self, answer: urllib3.BaseHTTPResponse, lfn: str) -> StorageError:
        try:
            found = _CODE.search(answer.read(_ERROR_BYTES, decode_content=False))
        except HTTPError:
            found = None
        answer.close()
        code, status, name = found[1].decode() if found else "", answer.status, self.store.name
        told = f"{status} {code}".strip()
        if status == 404 and code != "NoSuchBucket":
            return FileMissing(f"no such file: no such key in the store {name}", lfn, failure_class="permanent")
        if status == 404:
            return self._error("has no such bucket", lfn, "permanent", self._check)
        if status == 412:
            return KeyChanged("the key has changed since it was registered", lfn, failure_class="data-bad")
        if status == 416:
            return KeyChanged("the key is shorter than it was", lfn, failure_class="data-bad")
        if code == "InvalidObjectState":
            return self._error("keeps it in an archive", lfn, "permanent", "restore it there first")
        if status in (401, 403) or code in _AUTH:
            return self._error(f"refuses us: {told}", lfn, "auth", f"check the credentials of [stores.{name}]")
        if status in (408, 429) or status >= 500 or code in ("RequestTimeout", "SlowDown"):
            return self._error(f"cannot answer now: {told}", lfn, "transient")
        return self._error(f"does not take the request: {told}", lfn, "permanent", self._check)

    def _require_version(
        self, answer: urllib3.BaseHTTPResponse, lfn: str, start: int, stop: int, size: int, etag: str
    ) -> None:
        """It is the version, range and length asked for, also from a store that knows no if-match or no range."""
        seen = answer.headers.get("etag", "").strip('"')
        if seen and seen != etag:
            answer.close()
            raise KeyChanged("the key has changed since it was registered", lfn, failure_class="data-bad")
        given = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        got = (int(given[1]), int(given[2]) + 1, int(given[3])) if given else None
        if answer.status == 200 and answer.headers.get("content-length") == str(size):
            got = (0, size, size)
        if got is not None and got[2] != size:
            answer.close()
            what = f"the key has {got[2]:,} bytes where {size:,} were registered"
            raise KeyChanged(what, lfn, failure_class="data-bad")
        if got != (start, stop, size):
            answer.close()
            raise self._error(f"does not give the range asked for ({shown(str(got), 60)})", lfn, "permanent")


def _parsed(page: bytes) -> ElementTree.Element:
    """A page of keys. Bytes that XML cannot have are replaced: the key that has them is no LFN, the others go on."""
    try:
        return ElementTree.fromstring(page)
    except ElementTree.ParseError:
        text = _NOT_XML.sub("\ufffd", page.decode(errors="replace"))
        return ElementTree.fromstring(_NO_XML_REFERENCE.sub(_legal_reference, text))


def _legal_reference(found: re.Match[str]) -> str:
    """A numbered character as it stands if XML may have it."""
    digits = found[1]
    number = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    legal = (
        number in (9, 10, 13) or 0x20 <= number < 0xD800 or 0xE000 <= number < 0xFFFE or 0x10000 <= number < 0x110000
    )
    return found[0] if legal else "\ufffd"

"""A worker's API: what its views and its own state say, as JSON over HTTP GET. Read-only, off the agents' loop.

A thread of its own with a few more for the answers; each answer is a page of bounded size. 400 a question that cannot
be understood, 404 nothing of that name, 503 ask again later (also when all threads are busy), 500 a fault of ours.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import structlog

from streams.client.snapshot_json import to_plain
from streams.client.worker_api import SITE_HEADER
from streams.core.names import Block, Dataset, IntentId, Lfn, Site
from streams.core.selectors import Kind, Selector
from streams.errors import NeverWorks, NotFound, Temporary, Transfer2goError, UsageError
from streams.settings import Settings
from streams.views import naming
from streams.views.catalogue import Summary
from streams.views.view import View

log = structlog.get_logger(__name__)

USUAL_PORT = 6066
ANSWERS_MAX = 8
"""Answered at once; more are told to come again."""
CLIENT_S = 10.0
"""A client that neither asks nor reads for so long is let go."""
LIMIT, LIMIT_MAX = 100, 1000
FRESH_S = 3.0
"""How long a question may wait for the view to hear what stands in the log."""

Query = Mapping[str, str]


@dataclass(frozen=True)
class Vitals:
    """The worker's state, asked from any thread: plain reads."""

    partitions: Callable[[], Collection[int]]
    awake: Callable[[], bool]
    """Every partition owned has caught up."""
    plane_alive: Callable[[], bool]
    parts_open: Callable[[], int]
    records: Callable[[], Mapping[str, int]]
    orders_dropped: Callable[[], int]
    longest_stall_s: Callable[[], float]
    """Of the agents' loop since the tables were recovered."""


class Api:
    """`start` binds and serves, `stop` ends; `address` is what was bound."""

    def __init__(self, settings: Settings, view: View, vitals: Vitals) -> None:
        self._settings = settings
        self._pages = Pages(settings, view, vitals)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Of a running API, as http://HOST:PORT; one bound to all interfaces is announced by this machine's name."""
        if self._server is None:
            return ""
        host, port = self._server.server_address[:2]
        shown = str(host)
        if shown in ("0.0.0.0", "::"):
            shown = socket.gethostname()
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"

    def start(self) -> None:
        """Raises NeverWorks when the address cannot be bound. Without a port of its own, 6066 or any free one."""
        host, port = self._settings.web_host, self._settings.web_port
        try:
            self._server = _Server(host, port or USUAL_PORT, self._pages)
        except OSError as error:
            if port:
                raise _cannot_bind(host, port, error) from error
            try:
                self._server = _Server(host, 0, self._pages)
            except OSError as again:
                raise _cannot_bind(host, USUAL_PORT, again) from again
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answers under way are finished, within CLIENT_S; the views may be closed afterwards."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.finish(CLIENT_S)
            self._server.server_close()


def _cannot_bind(host: str, port: int, error: OSError) -> NeverWorks:
    what = f"the worker's API cannot be bound to {host}:{port}: {error.strerror or error}"
    return NeverWorks(what, next="set web_host or web_port (T2G_WEB_PORT)")


class _Server(HTTPServer):
    """HTTPServer with ANSWERS_MAX threads; a connection beyond is told 503 at once, by the accepting thread."""

    request_queue_size = 64
    allow_reuse_address = True

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self._free = threading.Semaphore(ANSWERS_MAX)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks a name server for this machine's full name.
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            body = _error("all threads are busy", Temporary.exit_code)
            head = f"HTTP/1.0 503 Busy\r\n{SITE_HEADER}: {self.pages.site}\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                request.setblocking(False)
                request.send(head.encode() + body)
            except OSError:
                pass
            self.shutdown_request(request)
            return
        threading.Thread(target=self._answer, args=(request, client_address), name="api-answer", daemon=True).start()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client went away
        except Exception:
            log.exception("an answer failed")
        finally:
            self.shutdown_request(request)
            self._free.release()

    def finish(self, timeout_s: float) -> None:
        """Wait until nothing is being answered."""
        until_s = time.monotonic() + timeout_s
        for _ in range(ANSWERS_MAX):
            self._free.acquire(timeout=max(0.0, until_s - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_S
    server_version, sys_version = "transfer2go", ""

    def do_GET(self) -> None:
        status, body = self.server.pages.answer(self.path)
        self._send(status, body)

    def _refuse(self) -> None:
        self._send(405, _error("only GET is answered", UsageError.exit_code))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _refuse

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(SITE_HEADER, self.server.pages.site)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A line for each question would fill a log that nobody reads for them."""


def _error(why: str, exit_code: int) -> bytes:
    return json.dumps({"error": why, "exit_code": exit_code}).encode()


def status_of(error: Transfer2goError) -> int:
    """The HTTP status of an error of ours."""
    match error:
        case UsageError():
            return 400
        case NotFound():
            return 404
        case Temporary():
            return 503
        case _:
            return 409


class Pages:
    """Path and query to JSON. Every answer is bounded; no HTTP here."""

    def __init__(self, settings: Settings, view: View, vitals: Vitals) -> None:
        self.site: Site = settings.here
        self._settings, self._view, self._vitals = settings, view, vitals
        self._pages: dict[str, Callable[[Query], Any]] = {
            "/api/health": self._health,
            "/api/where": self._where,
            "/api/replicas": self._replicas,
            "/api/files": self._files,
            "/api/datasets": self._datasets,
            "/api/blocks": self._blocks,
            "/api/intents": self._intents,
            "/api/sites": self._sites,
        }

    def answer(self, target: str) -> tuple[int, bytes]:
        """(status, JSON) of what stands in a request's first line."""
        try:
            parts = urlsplit(target)
            query = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=50).items()}
            return 200, json.dumps(self._found(parts.path, query)).encode()
        except Transfer2goError as error:
            return status_of(error), _error(str(error), error.exit_code)
        except ValueError as error:
            return 400, _error(f"not understood: {error}", UsageError.exit_code)
        except Exception as error:
            log.exception("a page failed", target=target[:200])
            return 500, _error(f"a fault of the worker: {type(error).__name__}", Transfer2goError.exit_code)

    def _found(self, path: str, query: Query) -> Any:
        page = self._pages.get(path.rstrip("/"))
        if page is not None:
            return page(query)
        head, _, name = path.rpartition("/")
        if head == "/api/intents":
            return self._intent(IntentId(unquote(name)), query)
        raise NotFound(f"no page {path[:100]}", next=f"pages: {', '.join(self._pages)}, /api/intents/INTENT")

    def _health(self, query: Query) -> dict[str, Any]:
        vitals, view = self._vitals, self._view
        awake, plane = vitals.awake(), vitals.plane_alive()
        return {
            "site": self.site,
            "ready": awake and plane and view.alive,
            "awake": awake,
            "plane": plane,
            "view": view.alive,
            "partitions": sorted(vitals.partitions()),
            "parts_open": vitals.parts_open(),
            "records": dict(vitals.records()),
            "orders_dropped": vitals.orders_dropped(),
            "longest_stall_s": round(vitals.longest_stall_s(), 3),
        }

    def _where(self, query: Query) -> list[dict[str, Any]]:
        return [r.told for r in self._view.catalogue.where(Lfn(_wanted(query, "lfn")))]

    def _replicas(self, query: Query) -> list[dict[str, Any]]:
        """Of many names, a line each, in whatever dataset."""
        names = [Lfn(name) for name in _wanted(query, "lfns").split("\n")]
        if len(names) > LIMIT_MAX:
            raise UsageError(f"{len(names):,} names, {LIMIT_MAX:,} at most", next="ask for them in parts")
        return [{"lfn": lfn, **replica.told} for lfn, replica in self._view.catalogue.replicas(names)]

    def _files(self, query: Query) -> dict[str, Any]:
        if "block" in query:
            selector = Selector(Kind.BLOCK, Block(query["block"]))
        else:
            selector = Selector(Kind.DATASET, Dataset(_wanted(query, "dataset")))
        found, cursor = self._view.catalogue.listing([selector], query.get("cursor", ""), _limit(query))
        files = [{"lfn": f.lfn, "replicas": [r.told for r in f.replicas], "conflict": f.conflict} for f in found]
        return {"files": files, "cursor": cursor}

    def _datasets(self, query: Query) -> dict[str, Any]:
        prefix, behind, limit = query.get("prefix", ""), query.get("cursor", ""), _limit(query)
        found = list(islice(self._view.catalogue.datasets(prefix, behind), limit + 1))
        return {"datasets": [_summary(s) for s in found[:limit]], "cursor": _behind(found, limit)}

    def _blocks(self, query: Query) -> dict[str, Any]:
        dataset, behind, limit = Dataset(_wanted(query, "dataset")), query.get("cursor", ""), _limit(query)
        found = list(islice(self._view.catalogue.blocks(dataset, behind), limit + 1))
        return {"blocks": [_summary(s) for s in found[:limit]], "cursor": _behind(found, limit)}

    def _intents(self, query: Query) -> dict[str, Any]:
        chosen = {name: query.get(name, "") for name in ("state", "requester", "dataset", "site", "cursor")}
        page = self._view.intents.page(**chosen, limit=_limit(query))
        return {"intents": [to_plain(one) for one in page.intents], "cursor": page.cursor}

    def _intent(self, intent: IntentId, query: Query) -> dict[str, Any]:
        """`fresh=all`: only when the view has heard what stands of it in the log; `fresh=asked`: what its home said."""
        view, fresh = self._view, query.get("fresh", "")
        if fresh not in ("", "all", "asked"):
            raise UsageError(f"fresh={fresh[:80]}: all or asked")
        if fresh and not view.catch_up_intent(intent, FRESH_S, asked=fresh == "asked"):
            raise Temporary("the view has not caught up with the log", next="ask again")
        found = view.intents.snapshot(intent)
        if found is None:
            raise NotFound(f"no intent {intent}", where=f"as {self.site} knows")
        if found.unfinished:
            found = naming.named(self._settings, found, view.intents.places(intent))
        return to_plain(found)

    def _sites(self, query: Query) -> dict[str, Any]:
        site = Site(query["site"]) if "site" in query else None
        limit, start = _limit(query), query.get("cursor", "0")
        if not start.isdecimal():
            raise UsageError(f"no cursor {start[:80]!r}", next="give back what the last page said")
        found = self._view.sites.announced(site, role=query.get("role"))
        behind = int(start) + limit
        return {
            "sites": [asdict(a) for a in found[int(start) : behind]],
            "cursor": str(behind) if behind < len(found) else None,
        }


def _wanted(query: Query, name: str) -> str:
    value = query.get(name)
    if not value:
        raise UsageError(f"the query needs {name}=")
    return value


def _limit(query: Query) -> int:
    text = query.get("limit", str(LIMIT))
    if not text.isdecimal() or not text.isascii() or int(text) < 1:
        raise UsageError(f"limit={text[:80]} is no whole number from 1")
    return min(int(text), LIMIT_MAX)


def _behind(found: list[Summary], limit: int) -> str | None:
    return found[limit - 1].name if len(found) > limit else None


def _summary(summary: Summary) -> dict[str, Any]:
    sites = {site: {"files": t.files, "bytes": t.bytes} for site, t in summary.per_site.items()}
    return {"name": summary.name, "files": summary.known.files, "bytes": summary.known.bytes, "sites": sites}

"""A worker's API: what it and its views know, as JSON, read-only. Bound to loopback unless configured otherwise."""

from __future__ import annotations

from typing import Any

import faust

from agents.assignment import Assignment
from agents.desk import Desk
from streams import avro
from streams.core.intent import IntentRow
from streams.core.names import Block, Dataset, IntentId, Lfn
from streams.core.selection import Kind, Selector
from streams.errors import Transfer2goError, UsageError
from streams.views.view import View

LISTED_MAX = 1000


def register(app: faust.App, desk: Desk, view: View, assignment: Assignment) -> None:
    """Declares the pages under /api."""

    def page(path: str, answer: Any) -> None:
        @app.page(path)
        async def handler(web: Any, request: Any, **match: str) -> Any:
            try:
                return web.json(answer(request.query, **match))
            except Transfer2goError as error:
                return web.json({"error": str(error), "exit_code": error.exit_code}, status=404)

    page("/api/health", lambda query: _health(desk, view, assignment))
    page("/api/where", lambda query: [_replica(r) for r in view.catalogue.where(Lfn(_wanted(query, "lfn")))])
    page("/api/files", lambda query: _files(view, query))
    page("/api/datasets", lambda query: [_summary(s) for s in view.catalogue.datasets(query.get("prefix", ""))])
    page("/api/blocks", lambda query: [_summary(s) for s in view.catalogue.blocks(Dataset(_wanted(query, "dataset")))])
    page("/api/intents/{intent}", lambda query, intent: _intent(desk, IntentId(intent)))
    page("/api/sites", lambda query: [_announced(a) for a in view.sites.announced()])


def _wanted(query: Any, name: str) -> str:
    value = query.get(name)
    if not value:
        raise UsageError(f"the query needs {name}=")
    return str(value)


def _health(desk: Desk, view: View, assignment: Assignment) -> dict[str, Any]:
    return {
        "site": desk.here,
        "ready": assignment.awake and view.alive,
        "partitions": sorted(assignment.owned),
        "parts_open": len(desk.clock.holding.opened),
        "records": dict(desk.counts),
        "longest_stall_s": round(assignment.guard.longest_s, 3),
        "orders_dropped": getattr(desk.plane, "dropped", 0),
    }


def _replica(replica: Any) -> dict[str, Any]:
    return {
        "site": replica.site,
        "dataset": replica.dataset,
        "block": replica.block,
        "bytes": replica.bytes,
        "adler32": replica.adler32,
    }


def _summary(summary: Any) -> dict[str, Any]:
    sites = {site: {"files": t.files, "bytes": t.bytes} for site, t in summary.per_site.items()}
    return {"name": summary.name, "files": summary.known.files, "bytes": summary.known.bytes, "sites": sites}


def _files(view: View, query: Any) -> dict[str, Any]:
    if "block" in query:
        selector = Selector(Kind.BLOCK, Block(query["block"]))
    else:
        selector = Selector(Kind.DATASET, Dataset(_wanted(query, "dataset")))
    limit = query.get("limit", "100")
    if not limit.isdigit():
        raise UsageError(f"limit={limit} is no whole number")
    found, cursor = view.catalogue.listing([selector], query.get("cursor", ""), min(int(limit), LISTED_MAX))
    files = [{"lfn": f.lfn, "replicas": [_replica(r) for r in f.replicas], "conflict": f.conflict} for f in found]
    return {"files": files, "cursor": cursor}


def _intent(desk: Desk, intent: IntentId) -> dict[str, Any] | None:
    """The row of an intent whose partition this worker owns, else null."""
    row = desk.turns.intent_row(intent)
    return None if row is None else {"ended": row.ended, **avro.writer(IntentRow)(row)}


def _announced(announced: Any) -> dict[str, Any]:
    return {
        "site": announced.site,
        "writer": announced.writer,
        "role": announced.role,
        "api": announced.api,
        "registry_digest": announced.registry_digest,
        "closing": announced.closing,
        "at_ms": announced.at_ms,
        "every_s": announced.every_s,
    }

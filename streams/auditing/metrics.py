"""What a follower does, for Prometheus: GET /metrics at an address that is asked for. One connection at a time.

A name that ends in `_total` only grows while the process lives; the others are of now, times in seconds of the epoch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from streams.auditing.following import FollowerState
from streams.core.ledger.findings import Invariant, Severity
from streams.core.names import Site
from streams.errors import Temporary, UsageError

PATH = "/metrics"
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_S = 5.0


def address_of(text: str) -> tuple[str, int]:
    """`HOST:PORT`, or `PORT` of this machine alone. UsageError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is no address", next="say HOST:PORT, as 127.0.0.1:9464")
    return host, int(port)


@contextmanager
def served(address: tuple[str, int], site: Site, state: FollowerState) -> Iterator[int]:
    """Answer in a thread of its own, until the block ends; its port. Temporary where somebody else listens there."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S

        def do_GET(self) -> None:
            body = text_of(site, state, time.time()).encode() if self.path == PATH else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: who asks each 15 s is no news."""

    try:
        server = HTTPServer(address, Handler)
    except OSError as error:
        where = "{}:{}".format(*address)
        raise Temporary(f"cannot listen for {PATH}: {error.strerror or error}", where, "choose another port") from error
    thread = threading.Thread(target=server.serve_forever, name="t2g-metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def text_of(site: Site, state: FollowerState, now_s: float) -> str:
    """In Prometheus's format. Names of sites need no escape: core/names.py says what they are made of."""
    here, counts = {"site": str(site)}, state.counts
    lines: list[str] = []

    def say(name: str, help_: str, *values: tuple[Mapping[str, str], float]) -> None:
        kind = "counter" if name.endswith("_total") else "gauge"
        lines.extend((f"# HELP transfer2go_follow_{name} {help_}", f"# TYPE transfer2go_follow_{name} {kind}"))
        for labels, value in values:
            said = ",".join(f'{label}="{of}"' for label, of in {**here, **labels}.items())
            lines.append(f"transfer2go_follow_{name}{{{said}}} {value:.15g}")

    def by_kind(found: Mapping[tuple[Invariant, Severity], int]) -> list[tuple[Mapping[str, str], float]]:
        return [
            ({"invariant": invariant.value, "severity": severity.value}, found.get((invariant, severity), 0))
            for invariant in Invariant
            for severity in Severity
        ]

    say("up", "1 while the cluster answers and all that stood there at the start was read.", ({}, _is_up(state)))
    say("records_total", "Records read.", ({}, counts.records))
    say("findings_total", "Findings told.", *by_kind(counts.told))
    say("findings", "Findings of the last judgement.", *by_kind(counts.found))
    say("judged_timestamp_seconds", "When the last judgement was.", ({}, counts.judged_ms / 1000))
    say("judgement_seconds", "Of a core's time, that it took.", ({}, counts.round_s))
    say("seals_total", "Seals made.", ({}, state.seals))
    say("sealed_journals_total", "Roots in those seals.", ({}, state.journals))
    ages = [({"sealer": str(one)}, max(0.0, now_s - at_ms / 1000)) for one, at_ms in sorted(state.sealed_ms.items())]
    say("seal_age_seconds", "Since the last seal that was heard of each site.", *ages)
    return "\n".join(lines) + "\n"


def _is_up(state: FollowerState) -> int:
    return int(not state.away and not state.is_reading)

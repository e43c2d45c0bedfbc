"""`audit --html`: what an audit found as one page that needs nothing else. Whatever comes from records is escaped.

No script, no link, no picture from elsewhere; its own policy (CSP) forbids all of them, should an escape be missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from streams.auditing.replaying import AuditReport
from streams.cli.screen import duration, size
from streams.core.ledger.findings import Invariant, Severity
from streams.core.ledger.traffic import DAY_MS, Link, Traffic
from streams.core.names import shown
from streams.errors import Temporary, UsageError

FINDINGS_SHOWN = 1000
LINKS_SHOWN = 40
STALE_S = 600.0
_CHARS_MAX = 2000
_BAR, _GAP, _HEIGHT = 8, 2, 28
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #d5dae0}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #e6e9ed;
vertical-align:top;overflow-wrap:anywhere}td.n,th.n{text-align:right;white-space:nowrap}
.verdict{padding:.6rem 1rem;border-left:.5rem solid #2f7d4f;background:#eef7f1;font-size:1.15rem}
.verdict.bad{border-color:#b3261e;background:#fdf0ef}.verdict.unsure{border-color:#a86500;background:#fdf5e6}
.broken{color:#b3261e;font-weight:600}.note{color:#7a4b00}code{font:12px/1.4 ui-monospace,monospace}svg{display:block}
rect{fill:#3b6ea8}ul{padding-left:1.2rem}
"""


def target_of(text: str) -> Path:
    """Where the page is to be. UsageError, before anything is read, where it cannot be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"--html {shown(text)}: no file can be written there", next="name a file in a directory of yours"
        )
    return path


def write(path: Path, page: str) -> None:
    """Replaces the file as a whole. Temporary for a full disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(page, "utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Temporary(f"the page cannot be written: {error.strerror}", str(path), "choose another --html") from error


def page_of(
    report: AuditReport, verdict: str, promises: Mapping[Invariant, str], traffic: Traffic, now_s: float
) -> str:
    """`verdict` as it is printed; `promises`: what each invariant says; `traffic` of the same audit."""
    parts = [
        f"<h1>Audit of {_text(', '.join(report.sites) or 'no site')}</h1>",
        f"<p>{_text(_moment(now_s))}, digest <code>{_text(report.digest)}</code></p>",
        f'<p class="verdict {_mood(report)}">{_text(verdict)}</p>',
        _promises(report, promises),
        _coverage(report),
        _seals(report, now_s),
        _traffic(traffic),
        _findings(report),
        _remarks(report),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>transfer2go audit: {_text(verdict)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _text(said: object) -> str:
    """What may come from a record: control characters are shown, marks of HTML are letters."""
    return escape(shown(str(said), _CHARS_MAX), quote=True)


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _mood(report: AuditReport) -> str:
    """The verdict's colour, for who has not read it yet."""
    return "good" if report.exit_code == 0 else "bad" if report.exit_code == 1 else "unsure"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns that begin with ">" are numbers. Cells are HTML already."""
    kinds = [' class="n"' if column.startswith(">") else "" for column in columns]
    head = "".join(f"<th{kind}>{_text(name.lstrip('>'))}</th>" for name, kind in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _promises(report: AuditReport, promises: Mapping[Invariant, str]) -> str:
    judged = report.judgement
    rows = [
        (f"{_text(one)} {_text(promises[one])}", f"{judged.checked[one]:,}", f"{judged.found[one]:,}")
        for one in Invariant
    ]
    return "<h2>Promises</h2>" + _table(("promise", ">checked", ">findings"), rows)


def _coverage(report: AuditReport) -> str:
    lines = [f"read: {', '.join(report.sites) or 'none'}; {report.records:,} records in {duration(report.seconds)}"]
    if report.known:
        lines.append(f"earlier audits had read {report.known:,} records")
    if report.left_out:
        lines.append(f"not asked for: {', '.join(report.left_out)}")
    lines += [f"{site} could not be read: {why}" for site, why in sorted(report.unreachable.items())]
    lines += [f"not seen: {line}" for line in report.judgement.unseen]
    if report.disks_unread:
        lines.append(f"disks that were not read: {', '.join(report.disks_unread)} (--storage)")
    if (tally := report.storage) is not None:
        lines.append(f"{tally.files:,} files read back, {size(tally.bytes)}; {tally.replicas:,} replicas looked for")
        lines += [f"storage out of reach: {line}" for line in tally.unreachable]
    return "<h2>Coverage</h2><ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _seals(report: AuditReport, now_s: float) -> str:
    rows = []
    for site in sorted({*report.sites, *report.left_out, *report.unreachable}):
        at_ms = report.sealed_ms.get(site)
        if at_ms is None:
            rows.append((_text(site), '<span class="note">not checkable: no seal was read</span>'))
            continue
        age_s = max(0.0, now_s - at_ms / 1000)
        words = f"{duration(age_s)} before this audit"
        stale = age_s > STALE_S
        rows.append((_text(site), f'<span class="note">{_text(words)}: stale</span>' if stale else _text(words)))
    return "<h2>Last seals</h2>" + _table(("site", "sealed last"), rows)


def _traffic(traffic: Traffic) -> str:
    totals = sorted(((sum(of.values()), link) for link, of in traffic.by_day.items()), reverse=True)
    first = (traffic.last_day - traffic.days + 1) * DAY_MS / 1000
    title = f"<h2>Bytes by link and day, {traffic.days} days from {_moment(first)[:10]} on</h2>"
    if not totals:
        return title + "<p>none arrived</p>"
    most = max(max(of.values()) for of in traffic.by_day.values())
    rows = [
        (_text(link.source), _text(link.destination), _text(size(total)), _bars(link, traffic, most))
        for total, link in totals[:LINKS_SHOWN]
    ]
    words = f"A full bar is {size(most)}."
    if rest := totals[LINKS_SHOWN:]:
        words += f" {len(rest):,} more links brought {size(sum(total for total, _ in rest))}."
    if traffic.outside:
        words += f" {size(traffic.outside)} are dated outside of these days."
    return title + _table(("from", "to", ">bytes", "by day"), rows) + f"<p>{_text(words)}</p>"


def _bars(link: Link, traffic: Traffic, most: int) -> str:
    """One bar a day; what was moved is never drawn as nothing."""
    width = traffic.days * (_BAR + _GAP)
    found = traffic.by_day[link]
    bars = []
    for day, moved in sorted(found.items()):
        high = max(1, round(_HEIGHT * moved / most))
        at = (traffic.last_day - traffic.days + 1 + day) * DAY_MS / 1000
        title = f"<title>{_text(_moment(at)[:10])}: {_text(size(moved))}</title>"
        bars.append(
            f'<rect x="{day * (_BAR + _GAP)}" y="{_HEIGHT - high}" width="{_BAR}" height="{high}">{title}</rect>'
        )
    label = _text(f"bytes a day from {link.source} to {link.destination}")
    return f'<svg role="img" aria-label="{label}" width="{width}" height="{_HEIGHT}">{"".join(bars)}</svg>'


def _findings(report: AuditReport) -> str:
    found = report.judgement.findings
    if not found:
        return "<h2>Findings</h2><p>none</p>"
    rows = []
    for one in found[:FINDINGS_SHOWN]:
        kind = "broken" if one.severity is Severity.BROKEN else "note"
        records = "<br>".join(f"<code>{_text(place)}</code>" for place in one.records)
        rows.append((_text(one.invariant), f'<span class="{kind}">{kind}</span>', _text(one.words), records))
    more = len(found) - FINDINGS_SHOWN
    words = f"<p>{more:,} more: see <code>transfer2go audit --json</code></p>" if more > 0 else ""
    return "<h2>Findings</h2>" + _table(("promise", "severity", "what", "records"), rows) + words


def _remarks(report: AuditReport) -> str:
    parts = []
    for title, remarks in (
        ("Waiting", report.judgement.waiting),
        ("Not checkable from here", report.judgement.unchecked),
    ):
        if remarks:
            rows = [(_text(one.invariant), _text(one.words), f"{one.count:,}") for one in remarks[:FINDINGS_SHOWN]]
            parts.append(f"<h2>{title}</h2>" + _table(("promise", "what", ">count"), rows))
    return "".join(parts)

"""`audit --html`: one page, nothing from elsewhere, and nothing of a record that a browser would take for its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.auditing.replaying import AuditReport, audit
from streams.cli import audit_page
from streams.cli.audit import PROMISES
from streams.cli.audit import audit as command
from streams.core.ledger.findings import Finding, Invariant, LogPosition, Remark, Severity
from streams.core.ledger.traffic import DAY_MS, LINKS_MAX, OTHERS, Link, Traffic
from streams.core.names import Site
from streams.errors import UsageError
from tests.audit.conftest import Stage
from tests.audit.history import START_MS, A, B, healthy
from tests.audit.sealing import SealedWorld

Build = Callable[..., Stage]
HOSTILE = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "&lt;script&gt;",
    "<!-- -->]]>\x00\x1b[31m\u202egpj.exe",
    "<a href=https://evil.example/>x</a>",
)
TAGS = frozenset(
    re.findall(r"\S+", "html head meta title style body h1 h2 p code table thead tbody tr th td span ul li br svg rect")
)
ATTRIBUTES = frozenset(
    re.findall(r"\S+", "lang charset http-equiv content name class role aria-label width height x y")
)
NOW_S = START_MS / 1000 + 86_400


class Seen(HTMLParser):
    """Which tags and attributes a browser would see, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_cell = tag == "td"
        if self._in_cell:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.cells:
            self.cells[-1] += data

    def handle_comment(self, data: str) -> None:
        self.tags.add("!--")


def page(report: AuditReport, traffic: Traffic | None = None, verdict: str = "clean") -> str:
    return audit_page.page_of(report, verdict, PROMISES, traffic or Traffic(20_000, 30), NOW_S)


def audited(stage: Build) -> AuditReport:
    at, world = stage(A, B), healthy(A, B)
    SealedWorld(world).seal(A)
    at.play(world)
    return audit(at.settings, sites=[A, B], traffic_days=30, now_ms=int(NOW_S * 1000))


def test_it_says_what_the_audit_found_and_needs_nothing_else(stage: Build) -> None:
    report = audited(stage)
    assert report.traffic is not None
    said = page(report, report.traffic)
    seen = Seen(said)
    assert seen.tags <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert not re.search(r"url\(|@import|https?:|src=|href=", said)
    assert "default-src 'none'" in said
    text = " ".join(seen.text)
    for words in ("clean", "Promises", "Coverage", "Last seals", "Findings", report.digest, "no record ends silently"):
        assert words in text
    assert [cell for cell in seen.cells if "not checkable: no seal was read" in cell], "B has sealed nothing"
    assert [cell for cell in seen.cells if "before this audit" in cell], "A has"
    assert report.traffic.by_day == {Link(A, B): {report.traffic.days - 2: 350}}, "a day before, all that arrived"
    assert said.count("<rect ") == 1
    assert "350 B" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_a_record_is_taken_for_the_page_s_own(stage: Build, name: str) -> None:
    report = audited(stage)
    place = LogPosition(Site(A), name, 0, 5)
    findings = (
        Finding(Invariant.NO_LIE, Severity.BROKEN, f"{name} was forged", (place,)),
        Finding(Invariant.NO_GAP, Severity.NOTE, name),
    )
    remarks = (Remark(Invariant.SEAL, name, 3),)
    judged = replace(report.judgement, findings=findings, waiting=remarks, unchecked=remarks, unseen=(name,))
    hurt = replace(
        *(report,),
        judgement=judged,
        unreachable={Site(A): name},
        digest=name,
        left_out=(name,),  # type: ignore[arg-type]
        disks_unread=(name,),  # type: ignore[arg-type]
        sealed_ms={name: START_MS},  # type: ignore[dict-item]
    )
    traffic = Traffic(20_000, 30, {Link(name, name): {3: 5}})  # type: ignore[dict-item]
    seen = Seen(page(hurt, traffic, f"BROKEN {name}"))
    assert seen.tags <= TAGS
    assert seen.attributes <= ATTRIBUTES
    text = "".join(seen.text)
    assert text.count("was forged") == 1
    assert not re.search(r"[\x00\x1b\u202e]", text)
    if name.isprintable():
        assert name in text, "people read it as it is"


def test_very_many_findings_and_links_are_counted(stage: Build) -> None:
    report = audited(stage)
    many = tuple(Finding(Invariant.NO_LIE, Severity.BROKEN, f"broken {n}") for n in range(3000))
    traffic = Traffic(20_000, 30)
    for n in range(LINKS_MAX + 10):
        traffic.add(Link(f"S{n}", "D"), 20_000 * DAY_MS, n + 1)
    traffic.add(Link("S1", "D"), 20_001 * DAY_MS, 7)
    traffic.add(Link("S1", "D"), 2**62, 7)
    said = page(replace(report, judgement=replace(report.judgement, findings=many)), traffic)
    assert len(said) < 500_000
    assert "2,000 more: see" in said
    assert len(traffic.by_day) == LINKS_MAX + 1
    assert sum(traffic.by_day[OTHERS].values()) == sum(range(LINKS_MAX + 1, LINKS_MAX + 11))
    assert traffic.outside == 14
    assert f"{LINKS_MAX + 1 - audit_page.LINKS_SHOWN:,} more links brought" in said


def test_the_verb_writes_it_whole_or_says_why_not(stage: Build, tmp_path: Path) -> None:
    at, world = stage(A, B), healthy(A, B)
    at.play(world)
    target = tmp_path / "page.html"
    told = CliRunner().invoke(command, ["--html", str(target)], obj=at.settings)
    assert told.exit_code == 0, told.output
    assert "clean" in Seen(target.read_text()).text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".page")] == []
    for wrong in (tmp_path, tmp_path / "none" / "page.html"):
        refused = CliRunner().invoke(command, ["--html", str(wrong)], obj=at.settings)
        assert isinstance(refused.exception, UsageError)
        assert "no file can be written there" in str(refused.exception)


def test_links_and_days_of_an_empty_federation(stage: Build) -> None:
    at = stage(A, B)
    report = audit(at.settings, traffic_days=30)
    assert report.traffic is not None
    found: Mapping[Link, object] = report.traffic.by_day
    assert found == {}
    assert "none arrived" in page(report, report.traffic)

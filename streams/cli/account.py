"""`transfer2go account`: what was moved and what was not, added up; as the last `audit` had read the journals."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import click

from streams.auditing.accounting import AccountReport, account_of
from streams.auditing.index import kept_index
from streams.cli import piped, screen
from streams.cli.as_of import instant, moment
from streams.cli.command import Verb, json_option
from streams.core.ledger.accounts import Account, By, Period
from streams.errors import NotFound, UsageError
from streams.settings import Settings

_DAY_S = 86_400
_MEDIAN, _MOST = 0.5, 0.95


@click.command(cls=Verb)
@click.option("--by", "by", required=True, type=click.Choice([str(one) for one in By]), help="What a row is of.")
@click.option("--from", "start", metavar="INSTANT", help="What ended then or later, a time as 2026-11-30T14:00:00Z.")
@click.option("--to", "stop", metavar="INSTANT", help="What ended before.")
@json_option
@click.pass_obj
def account(settings: Settings, by: str, start: str | None, stop: str | None, as_json: bool) -> None:
    """Files and bytes that arrived, files that failed by class, and the time from the asking to the completion.

    Each file counts once for each destination, when its transfer has ended. A site is a destination, a link goes from
    whoever gave most of a file to its destination, a day is that of the end, in UTC. Times (p50, p95) are right to 2 %.
    """
    chosen, period = By(by), _period(start, stop)
    report = account_of(kept_index(settings), chosen, period)
    _check(report, period)
    with piped.to_its_end():
        screen.listing(
            _ordered(report, chosen),
            as_json,
            lambda row: _as_object(chosen, *row),
            (by, ">files", ">size", ">failed", ">cancelled", "failures", ">p50", ">p95"),
            lambda row: _row(*row),
            empty="nothing has ended",
        )
    if report.rest is not None:
        screen.say(f"{len(report.rows):,} rows of their own; all others are added up in one")
    screen.say(f"as an audit had read the journals by {moment(report.read_ms)}; `transfer2go audit` reads on")


def _period(start: str | None, stop: str | None) -> Period:
    ends = ((start, "--from"), (stop, "--to"))
    period = Period(*(None if text is None else instant(text, name) for text, name in ends))
    if period.start_ms is not None and period.stop_ms is not None and period.start_ms >= period.stop_ms:
        raise UsageError(f"--from {start} is not before --to {stop}", next="what ended in between is counted")
    return period


def _check(report: AccountReport, period: Period) -> None:
    """NotFound where the period lies before all that was written, or behind all that was read."""
    if period.start_ms is not None and period.start_ms >= report.read_ms:
        read, start = moment(report.read_ms), moment(period.start_ms)
        words = f"the last audit had read the journals by {read}, and nothing that ended since {start}"
        raise NotFound(words, next="`transfer2go audit` reads on")
    if period.stop_ms is not None and report.first_ms is not None and period.stop_ms <= report.first_ms:
        raise NotFound(f"nothing had ended by {moment(period.stop_ms)}; the first end is of {moment(report.first_ms)}")


_Named = tuple[str | None, Account]


def _ordered(report: AccountReport, by: By) -> Iterable[_Named]:
    """Days in their order, of all else the most bytes first; what has no row of its own is last."""
    if by is By.DAY:
        rows = [(_day(int(number)), row) for number, row in sorted(report.rows.items(), key=lambda one: int(one[0]))]
    else:
        rows = sorted(report.rows.items(), key=lambda one: (-one[1].bytes, -one[1].counted, one[0]))
    yield from rows
    if report.rest is not None:
        yield None, report.rest


def _day(number: int) -> str:
    try:
        return datetime.fromtimestamp(number * _DAY_S, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):  # a clock may have said anything
        return f"{number} days after 1970"


def _row(name: str | None, row: Account) -> tuple[object, ...]:
    failures = ", ".join(f"{count:,} {what}" for what, count in sorted(row.failed.items()))
    took = [row.took_ms.at(share) for share in (_MEDIAN, _MOST)]
    times = [None if ms is None else screen.duration(ms / 1000) for ms in took]
    return (
        "all others" if name is None else name,
        *(row.files, screen.size(row.bytes), row.failed.total(), row.cancelled, failures or None),
        *times,
    )


def _as_object(by: By, name: str | None, row: Account) -> dict[str, object]:
    took = {share: row.took_ms.at(share) for share in (_MEDIAN, _MOST)}
    return {
        str(by): name,
        "files": row.files,
        "bytes": row.bytes,
        "failed": dict(sorted(row.failed.items())),
        "cancelled": row.cancelled,
        **{f"took_p{100 * share:.0f}_s": None if ms is None else round(ms / 1000, 3) for share, ms in took.items()},
    }

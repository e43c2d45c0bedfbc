"""Accounts out of the index that the last audit left. No log is read, nothing judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streams.auditing.index import last_read
from streams.core.ledger.accounts import Account, Accounts, By, Period
from streams.core.ledger.facts import Facts
from streams.core.ledger.rows import Codec, Names


@dataclass(frozen=True, slots=True)
class AccountReport:
    """`rows`: by name. `rest`: of names that have no row of their own, None where all have one.

    `first_ms`: when the first completion of all was logged, None where there is none. `read_ms`: when the audit ended
    that had read this.
    """

    rows: Mapping[str, Account]
    rest: Account | None
    first_ms: int | None
    read_ms: int


def account_of(path: Path, by: By, period: Period) -> AccountReport:
    """Of the index at `path`. NotFound where there is none, Temporary while an audit is at work on it."""
    accounts = Accounts(by, period)
    with last_read(path) as (index, read_ms):
        for _, _, facts in Facts(index, Codec(Names(index), index.salt)).all(accounts.kinds):
            accounts.add(facts)
    return AccountReport(accounts.rows, accounts.rest if accounts.rest.counted else None, accounts.first_ms, read_ms)

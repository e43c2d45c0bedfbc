"""Every error a user or an operator can meet. Nothing here decides anything.

    Transfer2goError          exit 1   something else went wrong
    ├── UsageError            exit 2   the words given cannot be understood
    │   └── InvalidName       exit 2   a name is not legal (names.py)
    ├── NotFound              exit 3   no such site, file, intent, schema
    ├── NotAllowed            exit 4   forbidden for this user or this site
    ├── Temporary             exit 5   retrying can help: broker away, disk full, port taken
    ├── TransferFailed        exit 6   a transfer ended failed
    ├── NeverWorks            exit 7   will never work as asked: contradiction, bad configuration
    │   └── WireError         exit 7   bytes on the wire that are refused (dead letter)
    ├── PartlyDone            exit 8   some items arrived, some did not
    └── StorageError          exit 1   a storage operation failed; carries its failure class

Retrying can help for `Temporary`, and for a `StorageError` whose class is transient; never for the others.
An error says what happened, where, and what to do next; `str()` of it is the one line a user sees.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import ClassVar

_PART_PATH = re.compile(r"[^\s'\"]*\.t2g-[^\s'\"]*")


def without_part_names(text: str) -> str:
    """An error's text in which part files are not named: their names are ours, and nobody can do anything with them."""
    return _PART_PATH.sub("a part file", text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest of the known words as a question; "" where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


class Transfer2goError(Exception):
    """Base of the tree. `what` happened, `where` (a path, topic, site…), and what to try `next`."""

    exit_code: ClassVar[int] = 1
    retry_helps: ClassVar[bool] = False

    def __init__(self, what: str, where: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next

    def __str__(self) -> str:
        line = self.what
        if self.where:
            line += f" ({self.where})"
        if self.next:
            line += f"; {self.next}"
        return line


class UsageError(Transfer2goError):
    exit_code = 2


class InvalidName(UsageError):
    """A site, LFN, dataset, block or id that is not legal."""


class NotFound(Transfer2goError):
    exit_code = 3


class NotAllowed(Transfer2goError):
    exit_code = 4


class Temporary(Transfer2goError):
    exit_code = 5
    retry_helps = True


class TransferFailed(Transfer2goError):
    exit_code = 6


class NeverWorks(Transfer2goError):
    exit_code = 7


class WireError(NeverWorks):
    """Bytes refused at the gate. `what` is the dead letter's reason.

    `speaks_for`: the site in whose name a record was written that stands in another's journal, None of any other.
    """

    def __init__(self, what: str, where: str = "", next: str = "", *, speaks_for: str | None = None) -> None:
        super().__init__(what, where, next)
        self.speaks_for = speaks_for


class PartlyDone(Transfer2goError):
    exit_code = 8


class StorageError(Transfer2goError):
    """A storage operation failed.

    `scope` is "source" or "destination"; `failure_class` one of transient, permanent, data-bad, quota, auth
    (docs/DESIGN.md, "Words"); both travel in facts as the reason of an item.
    """

    def __init__(self, what: str, where: str = "", next: str = "", *, failure_class: str = "transient") -> None:
        super().__init__(what, where, next)
        self.failure_class = failure_class


def permanent(what: str, where: str = "", next: str = "") -> StorageError:
    """What no later try mends, here or at another source."""
    return StorageError(what, where, next, failure_class="permanent")


def data_bad(what: str, where: str = "", next: str = "") -> StorageError:
    """Bytes that cannot be right; another source may have them whole."""
    return StorageError(what, where, next, failure_class="data-bad")


CLUSTER_AWAY = (Temporary, NotFound)
"""What a cluster says while it is away: a broker that restarts knows no topic for a moment."""

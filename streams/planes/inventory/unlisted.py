"""Manifests as they can be told, without what cannot: items that the gate refuses, intents that cannot be listed.

Both end with a reason: what every site refuses would be written for ever, and so would what fails the same way twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streams import wire
from streams.core.commands import WriteManifests
from streams.core.names import Block, IntentId, Lfn, Site, Text, shown
from streams.core.records import FailureClass, Item, ManifestWritten, Reason, Scope, Unit
from streams.core.selections import parts
from streams.errors import StorageError, Transfer2goError, WireError

NO_BLOCK = Block("/unknown/unknown/UNKNOWN#unknown")
"""Where a file that no site ever named is filed, so that its item can say so."""
UNLISTED = Lfn("/unlisted")
"""Stands for what could not be listed: its item says why."""
INTENTS_MAX = 1000


def manifest_of(
    here: Site, command: WriteManifests, no: int, prev_sha256: str, cursor: str, items: Sequence[Item], last: bool
) -> ManifestWritten:
    unit = Unit.ENTRIES if parts.means_entries(command.body.selection) else Unit.BYTES
    return ManifestWritten(
        command.body.intent, here, command.source_no, no, prev_sha256, cursor, unit, tuple(items), last
    )


def fitted(items: list[Item], made: Callable[[list[Item]], ManifestWritten]) -> ManifestWritten:
    """What is `made` of as many of the items as fit a record. Raises WireError where not even one does."""
    while True:
        body = made(items)
        try:
            wire.encode(body)
        except WireError:
            told = sayable(items)
            if told == items and len(items) < 2:
                raise
            items = told if told != items else items[: len(items) * 2 // 3]
        else:
            return body


def sayable(items: Sequence[Item]) -> list[Item]:
    """The items, each that the gate refuses as one that failed with the reason."""
    return [item if (why := wire.item_fault(item)) is None else _unsaid(item, why) for item in items]


def _unsaid(item: Item, why: str) -> Item:
    reason = Reason(Scope.SOURCE, FailureClass.PERMANENT, "list", Text(shown(f"it cannot be told: {why}", 390)))
    return Item(item.lfn, item.dataset, item.block, item.target, "", 0, 0, None, "", None, reason)


@dataclass
class Unlisted:
    """Remembers how listing failed last, by intent. Used by one thread."""

    here: Site
    _last: OrderedDict[IntentId, str] = field(default_factory=OrderedDict)

    def failed(self, command: WriteManifests, no: int, prev_sha256: str, error: Exception) -> ManifestWritten | None:
        """The manifest that ends the chain behind `no` and `prev_sha256` with the reason; None: asking again may help.

        A broken environment may be mended, so only what is permanent counts.
        """
        if _may_pass(error):
            return None
        intent, words = command.body.intent, f"{type(error).__name__} {error}"
        known = self._last.pop(intent, None)
        self._last[intent] = words
        if len(self._last) > INTENTS_MAX:
            self._last.popitem(last=False)
        if known != words:
            return None
        del self._last[intent]
        what = str(error) if isinstance(error, Transfer2goError) else words
        reason = Reason(Scope.SOURCE, FailureClass.PERMANENT, "list", Text(shown(f"cannot be listed: {what}", 390)))
        item = Item(UNLISTED, NO_BLOCK.dataset, NO_BLOCK, UNLISTED, "", 0, 0, None, "", None, reason)
        return ManifestWritten(
            command.body.intent, self.here, command.source_no, no, prev_sha256, "", Unit.BYTES, (item,), last=True
        )

    def worked(self, command: WriteManifests) -> None:
        """What failed before failed once."""
        self._last.pop(command.body.intent, None)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, StorageError):
        return error.failure_class == "transient"
    if isinstance(error, RuntimeError):  # "can't start new thread", which has no type of its own
        return "thread" in str(error)
    # RocksDB's binding raises plain Exceptions.
    return isinstance(error, OSError | MemoryError) or type(error) is Exception or getattr(error, "retry_helps", False)

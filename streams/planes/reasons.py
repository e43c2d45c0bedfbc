"""What went wrong with a file, in words and with a class: for facts that tell of it, at a source and a destination."""

from __future__ import annotations

import logging

from streams.core.names import Text, shown
from streams.core.records import FailureClass, Reason, Scope
from streams.errors import StorageError, Temporary, Transfer2goError, permanent

log = logging.getLogger(__name__)

_MISSING = "install transfer2go[events] at the source"


def reason_of(error: StorageError, phase: str, scope: Scope = Scope.DESTINATION, more: str = "") -> Reason:
    return Reason(scope, FailureClass(error.failure_class), phase, Text(shown(f"{error}{more}", 390)))


def put_in_words(error: Exception, lfn: str) -> StorageError:
    """What else can go wrong with entries, with a class: what a second try may cure is transient."""
    if isinstance(error, StorageError):
        error.where = lfn  # where this site keeps it is nobody else's business
        return error
    if isinstance(error, ImportError):
        return permanent(f"this site cannot read entries: {shown(str(error))}", lfn, _MISSING)
    if isinstance(error, Transfer2goError):
        kind = "transient" if isinstance(error, Temporary) else "permanent"
        return StorageError(error.what, error.where or lfn, error.next, failure_class=kind)
    if isinstance(error, MemoryError):
        return StorageError("no memory is left to read entries", lfn, "ask for fewer columns")
    log.error("entries of %s: unexpected", lfn, exc_info=error)
    return permanent(f"cannot read entries: {type(error).__name__}: {shown(str(error))}", lfn)

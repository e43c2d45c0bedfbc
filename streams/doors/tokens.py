"""Bearer tokens for doors of another make, as files hold them. What they open, and for how long, nobody here knows."""

from __future__ import annotations

from pathlib import Path

from streams.core.records import field_checks
from streams.errors import StorageError

TOKEN_BYTES_MAX = 4096


def token_in(path: Path | None, door: str) -> str:
    """The token, read anew, since tokens are exchanged before they end; "" without a file.

    StorageError (auth), which names the door and not where the file is: the words may go to another site.
    """
    if path is None:
        return ""
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(TOKEN_BYTES_MAX + 2).strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise _none(door, f"cannot be read: {why}") from error
    if not token or not field_checks.is_bearer(token):
        raise _none(door, "is no bearer token")
    return token


def _none(door: str, why: str) -> StorageError:
    what, then = f"the token of the door {door} {why}", f"correct token_file of [doors.{door}]"
    return StorageError(what, "", then, failure_class="auth")

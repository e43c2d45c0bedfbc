"""Public halves of keys as sites.toml has them: `ed25519:` and base64 of 32 bytes. No key is made or used here."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime

_PREFIX = "ed25519:"
_BYTES = 32
_KID = re.compile(r"[0-9a-f]{16}")


def public_key_text(key: bytes) -> str:
    return _PREFIX + base64.b64encode(key).decode()


def public_key_of(text: object) -> bytes:
    """ValueError for what is none."""
    if isinstance(text, str) and text.startswith(_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except (ValueError, binascii.Error):
            key = b""
        if len(key) == _BYTES:
            return key
    raise ValueError(f'want "{_PREFIX}" and base64 of {_BYTES} bytes, as `transfer2go key init` prints it')


def revoked_keys_of(table: object) -> dict[str, int]:
    """{kid: since when (ms of the epoch)}; ValueError for what is no such table."""
    if not isinstance(table, dict):
        raise ValueError('want a table, as { "0123456789abcdef" = 2026-01-31T12:00:00Z }')
    for kid, since in table.items():
        if not _KID.fullmatch(kid):
            raise ValueError(f"{kid!r} is no key's name, which has 16 hex digits")
        if not isinstance(since, datetime) or since.tzinfo is None:
            raise ValueError(f"{kid} is revoked since when? want a time with its zone, as 2026-01-31T12:00:00Z")
    return {kid: int(since.timestamp() * 1000) for kid, since in table.items()}

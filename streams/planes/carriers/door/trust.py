"""Whose certificates of doors are believed."""

from __future__ import annotations

import ssl
from pathlib import Path

from streams.doors.connection import DoorFault


def tls_of(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        why = f"who signs doors' certificates cannot be read: {error.strerror or error}"
        raise DoorFault(why, str(ca), failure_class="auth") from error

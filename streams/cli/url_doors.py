"""What a door of another make answers to who asks it for nothing: for `doctor`."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

ANSWER_S = 3.0


class DoorAnswer(NamedTuple):
    speaks_http: bool
    words: str


def answer_of(url: str, ca: Path | None) -> DoorAnswer:
    """One HEAD of it, without a token: that it refuses this is an answer too. `ca`: whom its certificate must be of."""
    made: http.client.HTTPConnection | None = None
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            trust = ssl.create_default_context(cafile=ca)
            made = http.client.HTTPSConnection(host, parts.port, timeout=ANSWER_S, context=trust)
        else:
            made = http.client.HTTPConnection(host, parts.port, timeout=ANSWER_S)
        made.request("HEAD", parts.path or "/")
        status = made.getresponse().status
    except ssl.SSLCertVerificationError as error:
        return DoorAnswer(False, f"{url} has a certificate that does not fit: {error.verify_message}")
    except http.client.HTTPException as error:
        return DoorAnswer(False, f"{url} does not speak HTTP: {type(error).__name__}")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return DoorAnswer(False, f"{url} cannot be reached from here: {why}; files go by the log while that is so")
    finally:
        if made is not None:
            made.close()
    if status >= 500:
        return DoorAnswer(False, f"{url} answers {status}: it gives nothing now; files go by the log while that is so")
    return DoorAnswer(True, f"{url} answers ({status} to a HEAD without a token)")

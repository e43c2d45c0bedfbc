"""Signature version 4 of the requests an S3-compatible store gets: pure arithmetic over what will be sent."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_UNSIGNED = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def quoted(text: str, safe: str = "") -> str:
    """As the signature counts it: all but unreserved characters as %XX."""
    return quote(text, safe=safe + "-._~", errors="surrogateescape")


def query_of(parameters: Mapping[str, str]) -> str:
    return "&".join(f"{quoted(name)}={quoted(value)}" for name, value in sorted(parameters.items()))


def signed(
    keys: Keys, region: str, method: str, path: str, query: str, headers: Mapping[str, str], at: datetime
) -> dict[str, str]:
    """`headers` (of a request without a body, `host` among them) and those that sign them.

    `path` and `query` as they will be sent, quoted already; `at` in UTC.
    """
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    given = {name.lower(): value.strip() for name, value in headers.items()}
    given |= {"x-amz-date": stamp, "x-amz-content-sha256": EMPTY_SHA256}
    if keys.session_token:
        given["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(given))
    lines = "".join(f"{name}:{value}\n" for name, value in sorted(given.items()))
    scope = _scope(stamp, region)
    signature = _signature(keys, stamp, scope, "\n".join((method, path, query, lines, names, EMPTY_SHA256)))
    credential = f"Credential={keys.access_key_id}/{scope}"
    return {**given, "authorization": f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"}


def presigned(keys: Keys, region: str, path: str, headers: Mapping[str, str], at: datetime, life_s: int) -> str:
    """The query with which anybody may GET `path` for `life_s` seconds, if he sends just these headers too.

    `headers`: `host` among them.
    """
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    given = {name.lower(): value.strip() for name, value in headers.items()}
    names, scope = ";".join(sorted(given)), _scope(stamp, region)
    asked = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(life_s),
        "X-Amz-SignedHeaders": names,
    }
    if keys.session_token:
        asked["X-Amz-Security-Token"] = keys.session_token
    query = query_of(asked)
    lines = "".join(f"{name}:{value}\n" for name, value in sorted(given.items()))
    signature = _signature(keys, stamp, scope, "\n".join(("GET", path, query, lines, names, _UNSIGNED)))
    return f"{query}&X-Amz-Signature={signature}"


def _scope(stamp: str, region: str) -> str:
    return f"{stamp[:8]}/{region}/s3/aws4_request"


def _signature(keys: Keys, stamp: str, scope: str, request: str) -> str:
    text = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret_access_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()

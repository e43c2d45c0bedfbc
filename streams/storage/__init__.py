"""Where files are at rest. `endpoint` is the contract in prose; each backend is a file; `open_endpoint` chooses."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from streams.core.store_names import Store
from streams.errors import NeverWorks
from streams.storage.endpoint import Endpoint
from streams.storage.rules import PathRules


def open_endpoint(
    url: str, *, name: str = "", rules: PathRules | None = None, stores: Sequence[Store] = ()
) -> Endpoint:
    """The endpoint at `url`; today `file:///ROOT`, whose root must exist (StorageError if not).

    Names below those of `stores` are read from them. `rules` map LFN to absolute PFN; without them PFN = ROOT + LFN.
    Raises NeverWorks for what is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise NeverWorks(f"no storage backend for {url!r}", next="use file:///ROOT")
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise NeverWorks(f"not an absolute local path: {url!r}", next="use file:///ROOT")
    from streams.storage.posix import PosixEndpoint

    home = PosixEndpoint(unquote(parts.path), name=name, rules=rules)
    if not stores:
        return home
    from streams.storage.routed import RoutedEndpoint

    return RoutedEndpoint(home, stores)

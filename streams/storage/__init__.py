"""Where files are at rest. `endpoint` holds the contracts, in prose; each back end is a file and a line of `BACK_ENDS`.

A site's endpoints have names, which its settings map to where they are; who needs one asks `open_named`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from urllib.parse import urlsplit

from streams.core.endpoint_config import DEFAULT_ENDPOINT, EndpointConfig
from streams.core.path_rules import PathRules
from streams.core.store_names import Store
from streams.errors import NeverWorks, NotFound
from streams.storage.endpoint import Endpoint

BACK_ENDS = {"file": "streams.storage.posix"}
"""By the scheme of their URL. Each module has `opened(url, *, name, rules) -> Endpoint`; imported when needed."""


def open_named(
    endpoints: Mapping[str, EndpointConfig], name: str = DEFAULT_ENDPOINT, *, called: str | None = None
) -> Endpoint:
    """The endpoint that a site's settings have under `name`; `called`: its `Endpoint.name`, if another.

    Raises as `open_endpoint`; NotFound where the site has none of that name.
    """
    config = endpoints.get(name)
    if config is None:
        raise NotFound(f"no endpoint {name} at this site", next=f"known endpoints: {', '.join(endpoints) or 'none'}")
    return open_endpoint(
        config.url, name=config.name if called is None else called, rules=config.rules, stores=config.stores
    )


def open_endpoint(
    url: str, *, name: str = "", rules: PathRules | None = None, stores: Sequence[Store] = ()
) -> Endpoint:
    """The endpoint at `url`: `file:///ROOT`, whose root must exist (StorageError if not).

    Names below those of `stores` are read from them. `rules` map LFN to absolute PFN; without them PFN = ROOT + LFN.
    Raises NeverWorks for what is no such URL.
    """
    parts = urlsplit(url)
    module = BACK_ENDS.get(parts.scheme)
    if module is None:
        raise NeverWorks(f"no storage backend for {url!r}", next="use file:///ROOT")
    home: Endpoint = import_module(module).opened(parts, name=name, rules=rules)
    if not stores:
        return home
    from streams.storage.routed import RoutedEndpoint

    return RoutedEndpoint(home, stores)

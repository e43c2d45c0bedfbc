"""Faust: thin, no decisions. `faust -A agents worker` takes `app` from here, built on first use by site.py."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Lazy, so that `streams.worker.turn` can be imported (and simulated) without Faust, settings or a broker.
    if name == "app":
        from agents.site import app

        return app()
    raise AttributeError(name)

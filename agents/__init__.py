"""Faust: thin, no decisions. `faust -A agents worker` takes `app` from here, built on first use by site.py."""

from __future__ import annotations

import sys
from typing import Any

from streams.errors import Transfer2goError


def __getattr__(name: str) -> Any:
    # Lazy, so that `agents.turn` can be imported (and simulated) without Faust, settings or a broker.
    if name == "app":
        from agents.site import app

        try:
            return app()
        except Transfer2goError as error:  # of the settings; whoever asked is Faust's command line
            sys.stderr.write(f"{error}\n")
            raise SystemExit(error.exit_code) from None
    raise AttributeError(name)

"""How a worker logs: one line per event through the standard library, values in repr: nothing controls a terminal."""

from __future__ import annotations

import logging

import structlog

QUIET = ("aiokafka", "faust.tables", "faust.stores", "faust.transport", "faust.assignor", "faust.app", "mode")
"""Their INFO is a page per rebalance; what they warn of is shown."""


def configure() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)

"""The carriers: ways by which bytes go from a source's storage to a destination's. A new one is a module here that
describes itself, and its line below.

Not here: what a carrier is (carrier.py), what is read (source/), how it is written (destination/).
"""

from __future__ import annotations

from streams.planes.carriers import door, log, tool
from streams.planes.carriers.carrier import Carrier

CARRIERS: dict[str, Carrier] = {
    log.CARRIER.name: log.CARRIER,
    door.CARRIER.name: door.CARRIER,
    tool.CARRIER.name: tool.CARRIER,
}
"""By the name that requests have; those for tools name the tool too."""

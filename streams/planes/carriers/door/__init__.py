"""The carrier `door`: bytes go straight from the source's storage to the destination's, requests stay in the log.

The source's side makes offers, the destination's fetches what they offer. Not here: what a door is and what is said on
its wire (streams/doors), and how an offer is heard (log.py: it stands where payload would).
"""

from __future__ import annotations

from streams.core.channel import DOOR
from streams.planes.carriers.carrier import Carrier
from streams.planes.carriers.door.fetching import DoorDestination
from streams.planes.carriers.door.offers import DoorSource

CARRIER = Carrier(DOOR, DoorSource, DoorDestination)

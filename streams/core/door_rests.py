"""How long a door, or a tool, that failed rests: for who saw it fail, and for who would try it next.

A transfer counts the failures that its row holds. A worker remembers the last of each site's door besides, of whichever
transfer: of a thousand manifests one finds out, and the others go by the log meanwhile. This is memory alone; who loses
it lets each of his transfers try once. The tool on a site's link is remembered apart from its door, in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.core.channel import DOOR
from streams.core.names import ManifestId, Site
from streams.core.policy import Policy

DOUBLED_MAX = 30
"""A rest doubles at most so often: no number of failures may be more than a time can be."""
WELL_AFTER = 4
"""A door that did not fail for so many of its last rests is well: its next failure is its first."""


def rest_ms(failures: int, policy: Policy) -> int:
    """After so many failures, one and more."""
    doubled = min(failures - 1, DOUBLED_MAX)
    return int(1000 * min(policy.door_rest_max_s, policy.door_rest_s * 2**doubled))


@dataclass(frozen=True, slots=True)
class _Failed:
    failures: int
    at_ms: int
    transfer: ManifestId


class DoorRests:
    """What one worker's transfers saw of doors and tools. Three entries a site: its door as a holder of files, its door
    as a relay, and the tool on its link."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._failed: dict[tuple[Site, str], _Failed] = {}

    def note(self, site: Site, at_ms: int, transfer: ManifestId, *, way: str = DOOR) -> None:
        """The site failed a transfer then: its door, it as a RELAY, or the TOOL on its link.

        Said again, or of an older failure, it changes nothing.
        What fails before a rest is over was under way when it began: that is one failure with the last. And where one
        transfer fails by itself, time after time, the fault may be its own: others wait for the first rest only.
        """
        known = self._failed.get((site, way))
        failures = 1
        if known is not None:
            since_ms, rested_ms = at_ms - known.at_ms, rest_ms(known.failures, self._policy)
            if since_ms <= 0:
                return
            if since_ms <= WELL_AFTER * rested_ms:
                failures = known.failures + (since_ms >= rested_ms and transfer != known.transfer)
        self._failed[site, way] = _Failed(failures, at_ms, transfer)

    def until_ms(self, site: Site, *, way: str = DOOR) -> int:
        """When this way may be tried again; 0 where none failed."""
        known = self._failed.get((site, way))
        return 0 if known is None else known.at_ms + rest_ms(known.failures, self._policy)

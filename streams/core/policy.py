"""The limits, each with its reason. One frozen object; tests and sites may replace single fields."""

from __future__ import annotations

from dataclasses import dataclass

RECORD_BYTES_MAX = 512 * 1024
"""A record over this is refused: Faust dies on puts and sends near 1 MB and commits past them (docs/PLATFORM.md)."""
JOURNAL_RECORD_BYTES_MAX = 2 * 1024 * 1024
"""What a broker takes in a journal: what was refused stands in dead letters whole, with words."""
HEADER_BYTES_MAX = 8 * 1024
"""Headers over this are refused; a chunk header of many small segments stays below it."""
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""Largest configurable payload record; brokers and mirrors are set up to pass it."""
SEGMENTS_MAX = 256
"""Segments of one payload record: 25 bytes each at most, so that its header stays below HEADER_BYTES_MAX."""
LEASES_MAX = 10
"""A lease outlived by what else comes through its partition ends after so many times its length all the same."""
MANIFEST_ITEMS_MAX = 1000
"""Items of a manifest: about 200 KB encoded, well under RECORD_BYTES_MAX."""
OTHERS_MAX = 8
"""Further holders of an item that its manifest names."""
CODECS = ("lz4", "zstd", "none")


@dataclass(frozen=True, slots=True)
class Policy:
    settle_s: float = 2.0
    """What was sent and not yet heard back is not sent again for so long: longer than a busy broker's round trip."""
    lease_s: float = 20.0
    """A request is asked again after so long a silence: of its own answers and of what shares its payload partition."""
    source_retry_s: float = 10.0
    """A source that said it cannot read now is asked again after so long: a store that is away is not hammered."""
    request_bytes: int = 64 * 1024 * 1024
    """One request: large enough for few Faust events, small enough that two in flight fit the credit."""
    requests_in_flight: int = 2
    """Per transfer: one flows while the next is being asked for."""
    credit_bytes: int = 128 * 1024 * 1024
    """Bytes asked for and not verified, per source and payload partition; retention is five times this."""
    door_bytes_min: int = 8 * 1024 * 1024
    """A transfer of less comes by the log: an offer's way and back costs as much as its bytes."""
    door_request_bytes: int = 512 * 1024 * 1024
    """One request by door: a quarter of a second to two, so that its progress and the next request overlap."""
    door_credit_bytes: int = 1024 * 1024 * 1024
    """Bytes asked for by door and not verified, per source and partition."""
    relays_max: int = 8
    """Destinations of the same intent that may be asked in the source's place, the nearest before this one; 0: none."""
    door_rest_s: float = 5.0
    """A door that failed rests so long, and the log takes over; twice as long after each more failure."""
    door_rest_max_s: float = 600.0
    report_s: float = 2.0
    """A changing transfer reports itself this often."""
    plans_open_max: int = 64
    """Unclosed transfers of one intent at one destination; bounds rows and reports of a million-file intent."""
    manifest_bytes: int = 1_000_000_000
    """Units after which the source starts the next manifest, so that big selections spread over partitions."""
    payload_codec: str = "lz4"
    """How the source compresses entries, one of CODECS: lz4 is quick, zstd smaller, none for links faster than both."""
    look_s: float = 0.5
    """Least time between two looks for new files of an open intent: they flow within about so long."""
    renew_s: float = 5.0
    """An open intent's source tells its plane so often to go on looking; after three times of silence it stops."""
    undecided_s: float = 60.0
    """An unknown name stays undecided so long before it is refused: mirrors lag."""
    approvers: str = ""
    """Who must let in what is asked of this site, one of them each: names with commas, `*` for anybody; "": nobody."""

    def may_approve(self, name: str) -> bool:
        """Names are believed: records are not signed."""
        named = {one.strip() for one in self.approvers.split(",")}
        return "*" in named or name in named

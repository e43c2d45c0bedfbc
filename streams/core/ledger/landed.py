"""I2 of files that only their destination could describe: what its plane said they became, its completion and replica.

The replica is held to the completion elsewhere (transfers.py); here both are held to the plane. What it cannot prove:
that the plane told the truth of the file, which the disk alone knows (`audit --storage`).
"""

from __future__ import annotations

from streams.core import records as m
from streams.core.ledger.claims import Claim, TransferClaims
from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.names import Destination, ManifestId

_I2 = Invariant.NO_LIE


def judge_landed(
    manifest: ManifestId,
    site: Destination,
    transfer: TransferClaims,
    completion: Claim[m.CompletionRecord],
    findings: FindingList,
) -> None:
    """Of a destination whose journals were read whole."""
    if not completion.word.landed:
        return
    findings.check(_I2)
    said: dict[int, list[tuple[int, int, LogPosition]]] = {}
    for word in transfer.landed or ():
        for at in range(0, len(word.items), 3):
            item, size, adler = word.items[at : at + 3]
            said.setdefault(item, []).append((size, adler, word.place))
    held = [claim.place for claim in transfer.held.ranked]
    for one in completion.word.landed:
        planes = said.get(one.item)
        if planes is None:  # that no plane sealed it is told under I2 already
            continue
        adler = int(one.adler32, 16)
        if (one.bytes, adler) not in [(size, known) for size, known, _ in planes]:
            size, known, place = planes[-1]
            words = (
                f"completion of {manifest} at {site}: item {one.item} landed with {one.bytes} bytes and adler32 "
                f"{adler:08x}, its plane said {size} bytes and {known:08x}"
            )
            findings.find(_I2, words, completion.place, place, *held[:1])

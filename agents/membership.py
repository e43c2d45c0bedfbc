"""A killed worker's place in its group, given up by whoever takes its data directory.

A group waits for a member that says nothing until its session is over, 10 s. The directory is locked while a worker
lives (the view's lock), so who has it knows that the worker before it there is gone. Were it wrong, the group would
deal out its partitions once more, and nothing else.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import structlog
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.group import LeaveGroupRequest

log = structlog.get_logger(__name__)

NAME = "group-member"


def note(datadir: Path, coordinator: Any) -> None:
    """Keeps what the group of aiokafka's coordinator calls this worker; replaced as a whole.

    Where it cannot be written, the session is waited for as ever.
    """
    part = datadir / f"{NAME}.part"
    with contextlib.suppress(OSError):
        part.write_text(f"{coordinator.group_id}\n{coordinator.member_id}\n")
        part.replace(datadir / NAME)


def _noted(datadir: Path, group: str) -> str:
    """What the group called the last worker of this directory; "" where none is known."""
    try:
        lines = (datadir / NAME).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return lines[1] if len(lines) == 2 and lines[0] == group else ""


async def succeed(datadir: Path, coordinator: Any) -> None:
    """Has the last worker of this directory leave the group, before this one joins.

    One that the group does not know has left it before. Where it cannot be asked, what joins next says why.
    """
    before = _noted(datadir, coordinator.group_id)
    if not before:
        return
    try:
        await coordinator.ensure_coordinator_known()
        answer = await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, before))
        error = for_code(answer.error_code)
    except KafkaError as failed:
        error = type(failed)
    log.info("the group is asked to let the worker before this one go", member=before, answer=error.__name__)

"""Whoever takes a worker's directory gives up its place in the group, once, and is never held up by it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, UnknownMemberIdError

from agents import membership


class _Coordinator:
    """What the broker is asked; it answers `answer`, an error code or what is raised."""

    def __init__(self, group: str = "site-1", member: str = "", answer: int | Exception = 0) -> None:
        self.group_id, self.member_id, self.answer = group, member, answer
        self.left: list[tuple[str, str]] = []

    async def ensure_coordinator_known(self) -> None:
        pass

    async def _send_req(self, request: Any) -> Any:
        self.left.append((request._group, request._member_id))
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(error_code=self.answer)


def _succeeded(datadir: Path, coordinator: _Coordinator) -> list[tuple[str, str]]:
    asyncio.run(membership.succeed(datadir, coordinator))
    return coordinator.left


def test_the_last_member_of_a_directory_leaves_before_the_next_joins(tmp_path: Path) -> None:
    membership.note(tmp_path, _Coordinator(member="faust-1"))
    membership.note(tmp_path, _Coordinator(member="faust-2"))
    assert _succeeded(tmp_path, _Coordinator()) == [("site-1", "faust-2")]


def test_a_directory_of_another_group_or_of_nobody_says_nothing(tmp_path: Path) -> None:
    assert _succeeded(tmp_path, _Coordinator()) == []
    membership.note(tmp_path, _Coordinator("site-0", "faust-1"))
    assert _succeeded(tmp_path, _Coordinator()) == []


@pytest.mark.parametrize("written", [b"", b"\xff\xfe", b"site-1", b"site-1\nfaust-1\nmore\n"])
def test_what_is_no_note_says_nothing(tmp_path: Path, written: bytes) -> None:
    (tmp_path / membership.NAME).write_bytes(written)
    assert _succeeded(tmp_path, _Coordinator()) == []


@pytest.mark.parametrize("answer", [UnknownMemberIdError.errno, GroupCoordinatorNotAvailableError()])
def test_a_refusal_holds_nobody_up(tmp_path: Path, answer: int | Exception) -> None:
    membership.note(tmp_path, _Coordinator(member="faust-1"))
    assert _succeeded(tmp_path, _Coordinator(answer=answer)) == [("site-1", "faust-1")]


def test_a_note_that_cannot_be_written_holds_nobody_up(tmp_path: Path) -> None:
    membership.note(tmp_path / "nowhere", _Coordinator(member="faust-1"))

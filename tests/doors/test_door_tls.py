"""A door over TLS: the same answers, and certificates that are looked at."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.core.ranges import Ranges
from streams.doors.connection import DoorFault
from streams.doors.server import DoorLimits
from tests.certificates import self_signed
from tests.doors.conftest import HERE, Stage, joined, pull

MIB = 1 << 20
StageOf = Callable[..., Stage]


def of_door(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def test_large_and_small_files_cross(stage_of: StageOf, tmp_path: Path):
    certificate = self_signed(tmp_path / "door.pem")
    stage = stage_of([5 * MIB + 7, *[300] * 200, 2 * MIB], tls=of_door(certificate))
    token = stage.ticket()
    with stage.connect(trusting(certificate)) as connection:
        half = len(stage.line) // 2
        assert joined(pull(connection, token, (0, half), (half, len(stage.line)))) == stage.line
    stage.tickets.end(token)
    assert stage.ended[0].sent == Ranges([(0, len(stage.line))])


def test_a_certificate_of_another_host_or_nobody(stage_of: StageOf, tmp_path: Path):
    certificate = self_signed(tmp_path / "door.pem", address="127.0.0.2")
    stage = stage_of([100], tls=of_door(certificate))
    for trusted in (certificate, self_signed(tmp_path / "other.pem")):
        with pytest.raises(DoorFault, match="certificate does not fit") as caught:
            stage.connect(trusting(trusted))
        assert caught.value.failure_class == "auth"


def test_who_does_not_speak_tls(stage_of: StageOf, tmp_path: Path):
    certificate = self_signed(tmp_path / "door.pem")
    quick = DoorLimits(head_s=0.5, idle_s=1.5)
    stage = stage_of([100], tls=of_door(certificate), limits=quick)
    token = stage.ticket()
    with stage.connect() as connection, pytest.raises(DoorFault):
        pull(connection, token, (0, 100))
    with socket.create_connection((HERE, stage.door.port), timeout=5) as silent:
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - began < 4
    with stage.connect(trusting(certificate)) as connection:
        assert joined(pull(connection, token, (0, 100))) == stage.line


def test_a_door_without_tls_is_not_asked_in_tls(stage_of: StageOf, tmp_path: Path):
    stage = stage_of([100])
    with pytest.raises(DoorFault, match="cannot be reached") as caught:
        stage.connect(trusting(self_signed(tmp_path / "door.pem")))
    assert caught.value.failure_class == "transient"

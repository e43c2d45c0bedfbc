"""Whoever reads what a verb prints may go: no error, no lost verdict, no waiting for a line that may never come."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from streams.cli import piped, root, screen
from streams.core.ranges import Ranges
from tests.cli.conftest import Run
from tests.cli.test_verbs import half_done
from tests.cli.test_watching_verbs import ended
from tests.producer.conftest import Hand

LISTING: tuple[tuple[str, ...], ...] = (
    ("topic", "tail", "-n", "all", "transfer-intents", "intent-decisions"),
    ("topic", "tail", "-n", "all", "transfer-intents", "--json"),
    ("topic", "tail", "-n", "all", "transfer-intents", "--bytes"),
    ("site", "list"),
    ("site", "list", "--json"),
    ("schema", "list"),
    ("schema", "list", "--json"),
    ("schema", "show", "TransferIntent"),
    ("config", "show"),
    ("config", "show", "--json"),
    ("config", "mirror"),
    ("intent", "list"),
    ("intent", "list", "--json"),
    ("dlq", "list"),
    ("dlq", "list", "--json"),
    ("file", "list"),
    ("file", "list", "--json"),
    ("--help",),
    ("intent", "--help"),
)


class Pipe:
    """Standard output as a pipe whose reader goes when it is told to."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        self.stdout = io.TextIOWrapper(os.fdopen(write, "wb", 0), encoding="utf-8", write_through=True)

    def leave(self) -> None:
        os.close(self._read)


@pytest.fixture
def piped_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a verb whose reader has gone, at once or `after_s`; its exit code."""

    def invoke(*args: str, after_s: float = 0.0) -> int:
        pipe = Pipe()
        going = threading.Timer(after_s, pipe.leave)
        going.start()
        if not after_s:
            going.join()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", pipe.stdout)
            try:
                with pytest.raises(SystemExit) as found:
                    root.main([str(arg) for arg in args])
            finally:
                going.join()
                pipe.stdout.close()
        code = found.value.code
        assert isinstance(code, int)
        return code

    return invoke


def test_a_reader_that_goes_is_no_error(piped_run: Callable[..., int], run: Run, hand: Hand) -> None:
    half_done(hand)
    found = {args: piped_run(*args) for args in LISTING}
    assert {args: code for args, code in found.items() if code} == {}


@pytest.mark.parametrize("verb", [("show",), ("show", "--json"), ("watch",)])
def test_a_verdict_is_not_lost_with_the_reader(
    piped_run: Callable[..., int], hand: Hand, verb: tuple[str, ...]
) -> None:
    body = ended(hand, failed=Ranges([(0, 2)]))
    assert piped_run("intent", verb[0], str(body.intent), *verb[1:]) == 6


@pytest.mark.parametrize(
    "args", [("topic", "tail", "-f", "-n", "0", "transfer-intents"), ("topic", "tail", "-f", "transfer-intents")]
)
def test_what_follows_ends_when_its_reader_goes(
    piped_run: Callable[..., int], hand: Hand, args: tuple[str, ...]
) -> None:
    began_s = time.monotonic()
    assert piped_run(*args, after_s=1.0) == 0
    assert time.monotonic() - began_s < 30


def test_every_line_of_json_is_json(run: Run, hand: Hand) -> None:
    half_done(hand)
    for args in LISTING:
        if "--json" in args:
            result = run(*args)
            assert result.exit_code == 0, args
            assert all(isinstance(json.loads(line), dict) for line in result.stdout.splitlines()), args


def test_watching_as_json_ends_when_its_reader_goes(piped_run: Callable[..., int], hand: Hand) -> None:
    body = half_done(hand)
    assert piped_run("intent", "watch", str(body.intent), "--json", after_s=1.0) == 0


def test_a_pipe_that_broke_elsewhere_is_an_error(run: Run, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise BrokenPipeError(32, "Broken pipe", "/some/socket")

    monkeypatch.setattr("streams.cli.schema.screen.table", broken)
    result = run("schema", "list")
    assert result.exit_code == 1
    assert "Broken pipe (/some/socket)" in result.stderr
    assert not piped.hush()


def test_json_is_valid_in_a_stream_that_is_not_utf8(run: Run) -> None:
    found = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    before, sys.stdout = sys.stdout, found
    try:
        screen.put_json({"name": "Übung", "odd": "\udcff"})
        screen.put("Übung ∆")
    finally:
        sys.stdout = before
    first, second = found.buffer.getvalue().decode("latin-1").splitlines()  # type: ignore[attr-defined]
    assert json.loads(first) == {"name": "Übung", "odd": "\udcff"}
    assert second == "Übung \\u2206"

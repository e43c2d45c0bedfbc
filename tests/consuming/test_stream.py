"""Streams on a cluster in this process: what is owed is told again, and a name is one process's."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from streams.consuming import session as line
from streams.consuming.stream import EventStream
from streams.core import records as m
from streams.core.ranges import Ranges
from streams.errors import NeverWorks, Temporary, Transfer2goError
from streams.settings import Settings
from tests.consuming.conftest import ZPEAK, A, Forgetful, SourceSite

AHEAD_BYTES = 4000
"""400 entries, in requests of 100."""


def stream(settings: Settings, **more: Any) -> EventStream:
    return EventStream(
        "T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab",
        settings=settings,
        timeout_s=30,
        **{"ahead_bytes": AHEAD_BYTES, **more},
    )


def numbers(found: EventStream, most: int | None = None) -> list[int]:
    """Entries of so many batches, or of all that are left."""
    out: list[int] = []
    for count, batch in enumerate(found, 1):
        out += batch.to_numpy()["n"].tolist()
        if count == most:
            break
    return out


def test_a_stream_hands_out_everything_and_ends(cluster: Settings) -> None:
    with SourceSite(cluster, [300, 200]) as source:
        source.publish()
        with stream(cluster) as found:
            assert numbers(found) == list(range(500))
        (ended,) = source.completions()
    assert (ended.ended, ended.sealed) == (m.Ended.DONE, Ranges.of(0, 1))


@pytest.mark.parametrize("kind", [m.TransferProgress, m.CompletionRecord])
@pytest.mark.parametrize("how", ["refused", "lost", "unheard"])
def test_what_was_not_acknowledged_is_told_again_and_no_commit_fails(
    cluster: Settings, forgetful: type[Forgetful], kind: type, how: str
) -> None:
    forgetful.kinds, forgetful.losses = (kind,), [how, how]
    with SourceSite(cluster, [200]) as source:
        source.publish()
        with stream(cluster) as found:
            seen = numbers(found, 3)
            found.commit()
            after = [said.verified for _, said in source.progress()]
            assert after[-1] == Ranges([(0, 30)]), "commit waits for the log"
            seen += numbers(found)
            found.commit()
        assert seen == list(range(200))
        assert not forgetful.losses
        assert set(map(repr, source.completions())) == {repr(source.completions()[0])}


def test_a_commit_gives_up_when_nothing_is_acknowledged(
    cluster: Settings, forgetful: type[Forgetful], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ACK_S", 1.0)
    with SourceSite(cluster, [200]) as source:
        source.publish()
        with stream(cluster) as found:
            numbers(found, 3)
            forgetful.losses = ["lost"] * 1000
            with pytest.raises(Temporary, match=r"did not acknowledge: given up after 30 s.*begin again"):
                found.commit()
            forgetful.losses = []
            found.commit()
        assert source.progress()[-1][1].verified == Ranges([(0, 30)])


def test_a_source_that_cannot_read_for_now_is_waited_for(cluster: Settings) -> None:
    with SourceSite(cluster, [100, 100, 100]) as source:
        source.away = {1}
        source.publish()
        with stream(cluster) as found:
            seen = numbers(found, 10)
            assert seen == list(range(100))
            found._timeout_s = 1.5
            with pytest.raises(
                Temporary, match=r"T1_A to read /store/1\.root, which it could not \(the store is away\)"
            ):
                next(found)
            assert sum(request.items[0].no == 1 for request in source.asked) <= 8, "it is not hammered"
            source.away = set()
            found._timeout_s = 30
            seen += numbers(found)
        assert seen == list(range(300))
        assert [said.ended for said in source.completions()] == [m.Ended.DONE]
        words = [
            str(said.waits_for)
            for _, said in source.said("transfer-reports")
            if isinstance(said, m.TransferReported) and said.reason is not None
        ]
        assert words[0].startswith(f"{A} to read /store/1.root")


def test_of_two_that_read_under_one_name_the_later_goes_on(cluster: Settings) -> None:
    with SourceSite(cluster, [1000]) as source:
        source.publish()
        with stream(cluster) as first:
            seen = numbers(first, 5)
            first.commit()
            seen += numbers(first, 5)
            with stream(cluster) as second:
                taken = numbers(second, 2)
                assert 50 <= taken[0] <= 90, "the log's word, of the batches before the last"
                newer = second._session._publisher.writer  # type: ignore[union-attr]
                with pytest.raises(Transfer2goError, match=rf"{newer} reads {ZPEAK} now") as caught:
                    _wait_for_end(first)
                assert "event work" in str(caught.value)
                with pytest.raises(Transfer2goError, match="took over"):
                    first.commit()
                first.close()
                taken += numbers(second)
        assert seen == list(range(100))
        assert taken == list(range(taken[0], 1000))
        attempts = [said.attempt for _, said in source.progress()]
        assert attempts[0] == 1
        assert attempts[-1] == 2
        assert [said.ended for said in source.completions()] == [m.Ended.DONE]


def _wait_for_end(found: EventStream) -> None:
    for _ in found:
        time.sleep(0.05)


def test_what_the_earlier_one_says_afterwards_moves_no_place(cluster: Settings) -> None:
    """Who was stopped may say its word late; whoever comes third goes by the second."""
    with SourceSite(cluster, [1000]) as source:
        source.publish()
        with stream(cluster) as first:
            numbers(first, 20)
            first.commit()
            ahead = m.TransferProgress(source.id, ZPEAK, 1, "stream", Ranges([(0, 900)]), Ranges())
            position = f"{source.id}@100"
            with stream(cluster, position=position) as second:
                assert numbers(second, 2)[:1] == [100]
                second.commit()
                first._session._publisher.send(ahead)  # type: ignore[union-attr]
                assert first._session._publisher.flush(10) == 0  # type: ignore[union-attr]
            with stream(cluster) as third:
                assert numbers(third, 1)[0] == 120, "neither back at 0 nor ahead at 900"
            with pytest.raises(Transfer2goError, match="took over"):
                first.commit()


def test_a_name_goes_from_one_to_the_next_as_often_as_it_likes(cluster: Settings) -> None:
    seen: list[int] = []
    with SourceSite(cluster, [200]) as source:
        source.publish()
        for _ in range(4):
            with stream(cluster) as found:
                seen += numbers(found, 3)
        with stream(cluster) as found:
            seen += numbers(found)
        assert [said.attempt for _, said in source.progress()] == sorted(s.attempt for _, s in source.progress())
    assert np.unique(seen).tolist() == list(range(200)), "nothing is left out"


def test_of_two_that_came_before_there_was_anything_one_goes_on(cluster: Settings) -> None:
    """Both found an empty log: neither knows of the other until their first words."""
    with SourceSite(cluster, [1000]) as source:
        source.publish(list_items=False)
        with stream(cluster) as first, stream(cluster) as second:
            for found in (first, second):
                found._timeout_s = 0.3
                with pytest.raises(Temporary, match="T1_A to write its manifests"):
                    next(found)
                found._timeout_s = 30
            source.say(source.manifest.body)
            with pytest.raises(Transfer2goError, match="took over"):
                _wait_for_end(first)
            assert numbers(second) == list(range(1000))
        assert [said.ended for said in source.completions()] == [m.Ended.DONE]


def test_who_was_taken_over_from_says_no_last_word(cluster: Settings) -> None:
    """It had worked on everything, and asks for one more batch after the other one came."""
    with SourceSite(cluster, [50]) as source:
        source.publish()
        with stream(cluster) as first:
            assert numbers(first, 5) == list(range(50))
            with stream(cluster, position=f"{source.id}@20") as second:
                assert numbers(second, 1) == list(range(20, 30))
                second.commit()
                _until_taken_over(first)
                with pytest.raises(Transfer2goError, match="took over"):
                    next(first)
                first.close()
                assert not source.completions()
                assert numbers(second) == list(range(30, 50))
        assert len(source.completions()) == 1


def _until_taken_over(found: EventStream) -> None:
    deadline = time.monotonic() + 20
    while found._session._error is None:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_pool_under_its_name_ends_a_stream(cluster: Settings) -> None:
    with SourceSite(cluster, [1000]) as source:
        source.publish()
        with stream(cluster) as found:
            numbers(found, 3)
            theirs = m.TransferProgress(source.id, ZPEAK, 1, "pool", Ranges([(0, 64)]), Ranges())
            found._session._publisher.send(theirs)  # type: ignore[union-attr]
            with pytest.raises(NeverWorks, match="workers share T2_B/zpeak"):
                _wait_for_end(found)

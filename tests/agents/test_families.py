"""What the agents read: every topic exists, each family is keyed as its rows are, and nothing is missing."""

from __future__ import annotations

import pytest

from agents.families import intent_topics, request_topics, transfer_topics
from streams.core import topics
from streams.core.names import Site
from tests.core import example as x

SITES = (x.A, x.B, x.C)


@pytest.mark.parametrize("here", SITES)
def test_agents_read_what_exists_and_what_they_need(here: Site) -> None:
    peers = tuple(site for site in SITES if site != here)
    families = [intent_topics(peers), transfer_topics(here, peers), request_topics(here, peers)]
    read = [name for names in families for name in names]
    assert len(read) == len(set(read)), "each by one agent"
    wanted = {topic.name for topic in topics.wanted(here, SITES)}
    assert set(read) <= wanted
    elsewhere = {topics.REPLICAS, topics.ANNOUNCEMENTS, topics.DEAD_LETTERS}
    left = {name for name in wanted - set(read) if topics.split(name)[1] not in elsewhere}
    assert all("chunks-to-" in name for name in left), f"journals nobody reads: {left}"


@pytest.mark.parametrize(
    ("message", "family"),
    [
        (x.body(), 0),
        (x.decided(), 0),
        (x.written(), 0),
        (x.reported(), 0),
        (x.completed(), 0),
        (x.planned(x.written()), 1),
        (x.progress(), 1),
        (x.requested(1, x.Ranges([(0, 5)]), source=x.B), 1),
    ],
)
def test_every_fact_of_a_row_is_in_the_family_of_its_key(message: object, family: int) -> None:
    peers = (x.A, x.C)
    names = [intent_topics(peers), transfer_topics(x.B, peers)][family]
    assert topics.topic_of(message) in names  # type: ignore[arg-type]
    assert topics.key_of(message) == (x.INTENT, x.MANIFEST)[family]  # type: ignore[arg-type]

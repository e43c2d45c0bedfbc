from __future__ import annotations

from typing import Any

import pytest

from streams.core.path_rules import PathRules
from streams.errors import NeverWorks, StorageError

CHAINED: list[dict[str, Any]] = [
    {"protocol": "disk", "rules": [
        {"lfn": r"/+store/mc/(.*)", "pfn": "/pool/simulated/$1"},
        {"lfn": r"/+store/(.*)", "pfn": "/pool/$1"},
    ]},
    {"protocol": "door", "rules": [{"lfn": r"/+(.*)", "pfn": "root://door.example//$1", "chain": "disk"}]},
    {"protocol": "plain", "prefix": "/data/cms"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "lfn", "pfn"),
    [
        ("disk", "/store/mc/a.root", "/pool/simulated/a.root"),
        ("disk", "/store/data/a.root", "/pool/data/a.root"),
        ("door", "/store/mc/a.root", "root://door.example//pool/simulated/a.root"),
        ("plain", "/store/data/a.root", "/data/cms/store/data/a.root"),
    ],
)
def test_the_first_rule_that_matches_wins_and_chains(protocol: str, lfn: str, pfn: str) -> None:
    assert PathRules.from_protocols(CHAINED, protocol).pfn(lfn) == pfn


def test_no_rule_is_permanent() -> None:
    with pytest.raises(StorageError, match="no path rule of protocol 'disk' matches") as caught:
        PathRules.from_protocols(CHAINED, "disk").pfn("/user/x")
    assert caught.value.failure_class == "permanent"


@pytest.mark.parametrize(
    ("protocols", "protocol", "words"),
    [
        (CHAINED, "srm", "no path rules for protocol 'srm'"),
        ([], "disk", "known: none"),
        ([{"protocol": "a", "rules": [{"lfn": "(", "pfn": "/"}]}], "a", "broken"),
        ([{"protocol": "a", "rules": [{"lfn": "x"}]}], "a", "broken"),
        ([{"protocol": "a", "rules": [{"lfn": "x", "pfn": "y", "chain": "b"}]}], "a", "chain to an unknown"),
    ],
)
def test_broken_rules_are_refused_at_once(protocols: list[dict[str, Any]], protocol: str, words: str) -> None:
    with pytest.raises(NeverWorks, match=words):
        PathRules.from_protocols(protocols, protocol)


def test_a_circle_of_chains_ends() -> None:
    rule = {"lfn": "/(.*)", "pfn": "/$1"}
    circle = [
        {"protocol": "a", "rules": [rule | {"chain": "b"}]},
        {"protocol": "b", "rules": [rule | {"chain": "a"}]},
    ]
    with pytest.raises(NeverWorks, match="circle: a → b → a"):
        PathRules.from_protocols(circle, "a").pfn("/x")


def test_a_prefix_is_taken_literally() -> None:
    assert PathRules.prefix("/da$1ta/").pfn("/store/x") == "/da$1ta/store/x"
    assert PathRules.prefix("").pfn("/store/x") == "/store/x"

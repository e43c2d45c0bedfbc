from __future__ import annotations

import random
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


# both ways

RULED = PathRules.configured(
    [
        {"lfn": "/+store/mc/(.*)", "pfn": "/data//simulated/$1"},
        {"lfn": r"^/store/(data|hidata)/(\w+)\.root$", "pfn": "/data/by-kind/$2/$1$$"},
        {"lfn": "/store/user/(.*)", "pfn": "/data/$1", "chain": "short"},
        {"protocol": "short", "lfn": "/store/user/([a-z])([^/]*)/(.*)", "pfn": "/store/user/$1/$1$2/$3"},
        {"protocol": "short", "lfn": "/(.*)", "pfn": "/$1"},
        {"prefix": "/data/rest/"},
    ]
)


@pytest.mark.parametrize(
    ("lfn", "pfn"),
    [
        ("/store/mc/a", "/data/simulated/a"),
        ("/store/data/x1.root", "/data/by-kind/x1/data$"),
        ("/store/user/maria/a", "/data/m/maria/a"),
        ("/other/b", "/data/rest/other/b"),
    ],
)
def test_each_name_has_a_place_and_each_place_a_name(lfn: str, pfn: str) -> None:
    assert RULED.pfn_of_one(lfn) == pfn
    assert RULED.lfn(pfn) == lfn


@pytest.mark.parametrize(
    "pfn", ["/data", "/elsewhere/a", "/data/by-kind/x1/mc$", "/data/rest/store/mc/a", "/data/m/zoe/a"]
)
def test_a_place_to_which_no_name_leads(pfn: str) -> None:
    assert RULED.lfn(pfn) is None


def test_two_names_of_one_place_are_one() -> None:
    rules = PathRules.configured([{"lfn": "/a/(.*)", "pfn": "/d/x/$1"}, {"lfn": "/(.*)", "pfn": "/d/$1"}])
    assert rules.pfn_of_one("/a/file") == "/d/x/file"
    with pytest.raises(StorageError, match="give the place of this name to /a/file") as caught:
        rules.pfn_of_one("/x/file")
    assert caught.value.failure_class == "permanent"
    assert rules.lfn("/d/x/file") == "/a/file"


def test_any_rules_are_a_bijection_where_they_are_taken() -> None:
    """Random rules of few texts over random names: no two names ever have one place, and each place leads back."""
    chance = random.Random(11)
    texts = ["/a", "/b", "/a/b", "/(.*)", "/(a|b)", "/([ab]+)/(.*)", "/+a/(.*)", "/(.*)-(.*)"]
    places = ["/d/$1", "/d/$2/$1", "/d/x", "/d/$1/x", "/d/$1-$2", "/d/a/$1", "/$1/$1"]
    taken = 0
    for _ in range(2000):
        entries = [{"lfn": chance.choice(texts), "pfn": chance.choice(places)} for _ in range(chance.randrange(1, 4))]
        try:
            rules = PathRules.configured(entries)
        except NeverWorks:
            continue
        taken += 1
        owners: dict[str, str] = {}
        for _ in range(20):
            lfn = "/" + "/".join(chance.choice(["a", "b", "x", "a-b"]) for _ in range(chance.randrange(1, 4)))
            try:
                pfn = rules.pfn_of_one(lfn)
            except StorageError:
                continue
            assert owners.setdefault(pfn, lfn) == lfn
            assert rules.lfn(pfn) == lfn
    assert taken > 200

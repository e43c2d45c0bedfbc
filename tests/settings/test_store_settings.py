"""Stores of a site, from its files and the environment: layers, faults, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.core.store_names import AskedKeys, Store
from streams.settings import BadSettings, Settings, load_settings

SITES = """
[sites.T1_A]
bootstrap = "127.0.0.1:22001"
"""
SITE = """
site = "T1_A"
[stores.cern]
url = "https://s3.example.ch/"
bucket = "raw"
prefix = "/2026/run1"
credentials_file = "keys.ini"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "T1_A").mkdir()
    (tmp_path / "sites.toml").write_text(SITES)
    return tmp_path


def load(state: Path, site: str, **environ: str) -> Settings:
    (state / "T1_A/site.toml").write_text(site)
    return load_settings(environ={"T2G_STATE": str(state), "T2G_SITE": "T1_A", **environ}, files=[])


def test_a_store_of_the_sites_own_file(state: Path) -> None:
    (store,) = load(state, SITE).stores
    ini = str(state / "T1_A/keys.ini")
    assert store == Store("cern", "https://s3.example.ch", "raw", "2026/run1/", credentials_file=ini)
    assert store.key("/store/s3/cern/a/b") == "2026/run1/a/b"
    assert store.lfn_of("2026/run1/a/b") == "/store/s3/cern/a/b"
    assert load(state, 'site = "T1_A"').stores == ()
    assert not store.direct
    assert load(state, SITE + "direct = true\n").stores[0].direct


def test_the_environment_is_stronger_and_its_secrets_are_not_shown(state: Path) -> None:
    settings = load(
        state,
        SITE,
        T2G_STORES_CERN_BUCKET="other",
        T2G_STORES_CERN_PATH_STYLE="false",
        T2G_STORES_CERN_ACCESS_KEY_ID="me",
        T2G_STORES_CERN_SECRET_ACCESS_KEY="hush",
        T2G_STORES_FAR_AWAY_URL="http://127.0.0.1:9000",
        T2G_STORES_FAR_AWAY_BUCKET="b2",
        T2G_STORES_FAR_AWAY_LFN="/store/far",
    )
    cern, far = settings.stores
    assert (cern.bucket, cern.path_style, cern.access_key_id, cern.secret_access_key) == ("other", False, "me", "hush")
    assert (far.name, far.base, far.url) == ("far-away", "/store/far", "http://127.0.0.1:9000")
    shown = {value.name: (value.value, value.origin) for value in settings.values}
    assert shown["stores.cern.bucket"] == ("other", "T2G_STORES_CERN_BUCKET")
    assert shown["stores.cern.secret_access_key"][0] == "***"
    assert "hush" not in f"{settings!r}{shown}"


def test_every_fault_is_said(state: Path) -> None:
    with pytest.raises(BadSettings) as refused:
        load(
            state,
            SITE
            + """
    lnf = "/store/x"
    [stores.Bad]
    url = "https://x"
    bucket = "b"
    [stores.half]
    url = "ftp://me:hush@example.ch"
    [stores.within]
    url = "https://x"
    bucket = "../b"
    prefix = "a/../b"
    lfn = "/store/s3/cern/within"
    access_key_id = "me"
    path_style = "perhaps"
    """,
            T2G_STORES_CERN_SECRET_ACCESS_KEY="hush\n",
        )
    told = str(refused.value)
    for words in (
        "stores.cern.lnf is not a setting of a store (did you mean lfn?)",
        "'Bad' is no name of a store",
        "stores.half needs a url and a bucket",
        "want http://HOST",
        "want the name of a bucket",
        "want what keys begin with",
        "has one of access_key_id and secret_access_key",
        "want true or false",
    ):
        assert words in told, words
    assert "hush" not in told


def test_stores_may_not_lie_in_each_other(state: Path) -> None:
    with pytest.raises(BadSettings, match="lie in each other"):
        load(state, SITE + '[stores.b]\nurl = "http://x"\nbucket = "bb"\nlfn = "/store/s3/cern/b"\n')


@pytest.mark.parametrize(
    ("asked", "begins"),
    [
        ("run1/*.root", "run1/"),
        ("a,b", ""),
        ("run1/a,run1/b*", "run1/"),
        (r"a\*b*", "a*b"),
        ("ä*", "ä"),
        ("x:///y", "x:///y"),
    ],
)
def test_what_a_store_is_asked_for_begins_as_the_keys_do(asked: str, begins: str) -> None:
    assert AskedKeys.parse(f"s3://cern/{asked}").begins == begins

"""Doors of another make as a site names them: what is read, and that each fault is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.settings import BadSettings, Settings, load_settings
from streams.settings.doors import HttpDoor

DOOR = '[doors.web]\nkind = "http"\nurl = "https://door.example.org:1094/store"\n'


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "sites.toml").write_text('[sites.T1_A]\nbootstrap = "127.0.0.1:9092"\n')
    return tmp_path


def load(state: Path, text: str) -> Settings:
    own = state / "site.toml"
    own.write_text(f'site = "T1_A"\n{text}')
    return load_settings(environ={"T2G_STATE": str(state), "T2G_SITE_CONFIG": str(own)}, files=[])


def test_doors_are_read_by_name(state: Path) -> None:
    more = 'token_file = "secret/token"\nredirects = ["pool.example.org", "*.pools.example.org"]\n'
    other = '[doors.a]\nkind = "http"\nurl = "http://127.0.0.1:8080"\n'
    settings = load(state, DOOR + more + other)
    redirects = ("pool.example.org", "*.pools.example.org")
    assert settings.http_doors == (
        HttpDoor("a", "http://127.0.0.1:8080/"),
        HttpDoor("web", "https://door.example.org:1094/store/", state / "secret/token", redirects),
    )
    assert load(state, "").http_doors == ()
    shown = {value.name: value.value for value in settings.values}
    assert shown["doors.web.token_file"] == str(state / "secret/token")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[doors.web]\nkind = "http"\n', 'doors.web needs kind = "http" and a url'),
        ('[doors.web]\nurl = "http://h/"\n', "doors.web needs kind"),
        (DOOR.replace('"http"', '"root"'), "doors.web.kind = 'root' from"),
        (DOOR + 'token = "abc"\n', "doors.web.token is not a setting of a door of another make (did you mean"),
        (DOOR + "redirects = ['*']\n", "want a list of hosts"),
        (DOOR + 'redirects = "h"\n', "want a list of hosts"),
        (DOOR + "token_file = 3\n", "the token itself stands in no setting"),
        (DOOR.replace("/store", "/store?token=x"), "without a query"),
        (DOOR.replace("https://", "ftp://"), "want http://HOST[:PORT]/PATH"),
        (DOOR.replace("1094", "109400"), "want http://HOST[:PORT]/PATH"),
        (DOOR.replace("door.example.org", "me:hush@door.example.org"), "doors.web.url = *** from"),
        (DOOR.replace("doors.web", 'doors."a b"'), "want letters, digits, _ and -"),
    ],
)
def test_each_fault_is_one_line(state: Path, text: str, said: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load(state, text)
    (fault,) = caught.value.faults
    assert said in fault
    assert "\n" not in fault
    assert "hush" not in fault

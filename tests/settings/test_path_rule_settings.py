"""`[endpoint] rules` of a site.toml: what is taken, what is refused in one line, and the map of endpoints."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from streams.core.endpoint_config import DEFAULT_ENDPOINT
from streams.settings import BadSettings, Settings, load_settings
from streams.storage import open_named

RULES = """
[endpoint]
url = "file:///data"
[[endpoint.rules]]
lfn = "/+store/mc/(.*)"
pfn = "/data/simulated/$1"
[[endpoint.rules]]
prefix = "/data/rest"
"""


def load(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return load_settings(need_federation=False, environ={"T2G_STATE": str(tmp_path), **environ}, files=[path])


def test_rules_come_from_the_sites_file_and_are_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, RULES)
    assert settings.path_rules is not None
    assert settings.path_rules.pfn("/store/mc/x") == "/data/simulated/x"
    assert settings.path_rules.pfn("/store/x") == "/data/rest/store/x"
    shown = {value.name: (value.value, value.origin) for value in settings.values}["endpoint.rules"]
    assert shown == ("/+store/mc/(.*) → /data/simulated/$1; /+(.*) → /data/rest/$1", str(tmp_path / "site.toml"))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert isinstance(hash(settings), int)


def test_without_rules_there_are_none(tmp_path: Path) -> None:
    assert load(tmp_path, '[endpoint]\nurl = "file:///data"\n').path_rules is None


def test_endpoints_have_names(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    root = f"{tmp_path}/disk"
    settings = load(tmp_path, f'[endpoint]\nurl = "file://{root}"\nrules = [{{prefix = "{root}/kept"}}]\n')
    assert list(settings.endpoints) == [DEFAULT_ENDPOINT] == ["default"]
    with open_named(settings.endpoints) as endpoint:
        assert (endpoint.name, endpoint.pfn("/store/x")) == ("default", f"{root}/kept/store/x")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ('"/data"', "want a list of rules"),
        ("[]", "want a list of rules"),
        ("[1]", "rule 1 is no table of texts"),
        ('[{prefix = "/data"}, {lfn = "/a"}]', "rule 2 needs lfn and pfn, or a prefix alone"),
        ('[{prefix = "/data", pfn = "/data"}]', "rule 1 needs lfn and pfn, or a prefix alone"),
        ('[{lfn = "/a", pfn = "/data/a", lfm = "/b"}]', "rule 1 has 'lfm'; a rule knows lfn, pfn"),
        ('[{lfn = "/(", pfn = "/data"}]', "is broken: missing"),
        ('[{lfn = "/(.*)", pfn = "/data/$1", chain = "other"}]', "chain to an unknown one: 'other'"),
        ('[{lfn = "/(.*)", pfn = "/data/$1", chain = "file"}]', "in a circle: file → file"),
        ('[{lfn = "/(.*)", pfn = "/data/$1", protocol = "door"}]', "no path rules for protocol 'file'"),
        ('[{lfn = "/.*", pfn = "/data/all"}]', "cannot be read back"),
        ('[{lfn = "/(.*)/(.*)", pfn = "/data/$1"}]', "its group 2 is not in its pfn"),
        ('[{prefix = "/elsewhere"}]', "'/elsewhere/', which is not below the path of endpoint.url, /data/"),
    ],
)
def test_wrong_rules_are_refused_in_one_line(tmp_path: Path, rules: str, words: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load(tmp_path, f'[endpoint]\nurl = "file:///data"\nrules = {rules}\n')
    (fault,) = caught.value.faults
    assert words in fault
    assert "endpoint.rules" in fault
    assert "\n" not in str(caught.value)


def test_rules_are_no_text_of_a_variable(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"endpoint\.rules = .* from T2G_ENDPOINT_RULES: want a list of rules"):
        load(tmp_path, "", T2G_ENDPOINT_RULES="/data")

"""Tools as a site names them: what is read, and that each fault is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.core.names import Lfn, Site
from streams.settings import BadSettings, Settings, load_settings
from streams.settings.tools import LinkTool, Tool

TOOL = '[tools.xrdcp]\ncommand = ["xrdcp", "--silent", "{source}", "{target}"]\n'
LINK = '[links.T2_B]\ntool = "xrdcp"\nsource = "root://xrd.example.org//store{lfn}"\n'


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "sites.toml").write_text(
        '[sites.T1_A]\nbootstrap = "127.0.0.1:9092"\n[sites.T2_B]\nbootstrap = "127.0.0.1:9093"\n'
    )
    return tmp_path


def load(state: Path, text: str, *more: str) -> Settings:
    own = state / "site.toml"
    own.write_text(f'site = "T1_A"\n{text}')
    files = []
    for number, layer in enumerate(more):
        (state / f"{number}.toml").write_text(layer)
        files.append(state / f"{number}.toml")
    return load_settings(environ={"T2G_STATE": str(state), "T2G_SITE_CONFIG": str(own)}, files=files)


def test_a_tool_is_put_on_a_link(state: Path) -> None:
    more = 'timeout_s = 600\nenvironment = ["X509_USER_PROXY"]\n[tools.xrdcp.exit]\n50 = "auth"\n54 = "permanent"\n'
    settings = load(state, TOOL + more + LINK + "rate = 1_000_000\n")
    tool = Tool(
        "xrdcp",
        ("xrdcp", "--silent", "{source}", "{target}"),
        600.0,
        {50: "auth", 54: "permanent"},
        ("X509_USER_PROXY",),
    )
    link = LinkTool(tool, "root://xrd.example.org//store{lfn}")
    assert settings.link_tools == {Site("T2_B"): link}
    assert settings.link_rates == {Site("T2_B"): 1_000_000}
    assert link.source_of(Lfn("/raw/f1")) == "root://xrd.example.org//store/raw/f1"
    assert LinkTool(tool, "host::all/{path}").source_of(Lfn("/raw/f1")) == "host::all/raw/f1"
    words = {"source": "{target}", "target": "/b", "bytes": "1", "adler32": "0", "lfn": "/f"}
    assert tool.words(words) == ["xrdcp", "--silent", "{target}", "/b"], "a value is no template"
    shown = {value.name: value.value for value in settings.values}
    assert shown["links.T2_B.tool"] == "xrdcp"
    assert shown["tools.xrdcp.exit.54"] == "permanent"


def test_without_any_there_is_none(state: Path) -> None:
    assert load(state, "").link_tools == {}
    assert load(state, TOOL).link_tools == {}, "a tool that is on no link is used by nobody"


def test_each_setting_is_the_strongest_layers(state: Path) -> None:
    stronger = '[tools.xrdcp]\ntimeout_s = 5\n[links.T2_B]\nsource = "/mnt{lfn}"\n[tools.xrdcp.exit]\n54 = "auth"\n'
    settings = load(
        state, TOOL + 'timeout_s = 600\n[tools.xrdcp.exit]\n54 = "permanent"\n3 = "quota"\n' + LINK, stronger
    )
    link = settings.link_tools[Site("T2_B")]
    assert (link.tool.timeout_s, link.source, link.tool.exits) == (5.0, "/mnt{lfn}", {54: "auth", 3: "quota"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[tools.cp]\ncommand = "cp {source} {target}"', r'want a list of words, as \["xrdcp", .*no shell reads it'),
        ("[tools.cp]\ncommand = []", "want a list of words, the program first, none empty"),
        ('[tools.cp]\ncommand = ["cp", "", "{source}", "{target}"]', "none empty"),
        ('[tools.cp]\ncommand = ["cp", 1]', "want a list of words"),
        ('[tools.cp]\ncommand = ["cp", "{source}", "{target}", "{size}"]', r"\{size\} is none of \{source\}, "),
        ('[tools.cp]\ncommand = ["cp", "{source}", "{target}", "{}"]', r"\{\} is none of"),
        ('[tools.cp]\ncommand = ["cp", "{source", "{target}"]', "a { stands alone"),
        ('[tools.cp]\ncommand = ["cp", "{source}"]', r"want \{target\} in it"),
        ('[tools.cp]\ncommand = ["cp", "{target}"]', r"want \{source\} in it"),
        ('[tools.cp]\ncommand = ["{source}", "{target}"]', "want a program first"),
        ("[tools.cp]\ntimeout_s = 60", "tools.cp needs a command"),
        (TOOL + "timeout_s = 0", "want seconds above 0, 604,800 at most"),
        (TOOL + "timeout_s = -1", "want seconds above 0"),
        (TOOL + "timeout_s = true", "want seconds above 0"),
        (TOOL + "timeout_s = nan", "want seconds above 0"),
        (TOOL + "timeout_s = 1e9", "604,800 at most"),
        (TOOL + 'environment = "PATH"', "want a list of names of variables"),
        (TOOL + 'environment = ["A=b"]', "not their values"),
        (TOOL + 'exit = {54 = "fatal"}', "want one of transient, permanent, data-bad, quota, auth"),
        (TOOL + 'exit = {0 = "permanent"}', "want an exit code from 1 to 255"),
        (TOOL + 'exit = {x = "permanent"}', "want an exit code from 1 to 255"),
        (TOOL + "timout_s = 5", r"is not a setting of a tool \(did you mean timeout_s\?\)"),
        ('[tools.log]\ncommand = ["cp", "{source}", "{target}"]', "not the name of a tool: is a carrier"),
        ('[tools."a b"]\ncommand = ["cp", "{source}", "{target}"]', "not the name of a tool: want letters"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"', "has a tool and no source: say where it finds a file"),
        (TOOL + '[links.T2_B]\nsource = "/a{lfn}"', "has a source and no tool that reads it"),
        (TOOL + '[links.T2_B]\ntool = "xrdcpy"\nsource = "/a{lfn}"', r"no such tool \(did you mean xrdcp\?\)"),
        ('[links.T2_B]\ntool = "xrdcp"\nsource = "/a{lfn}"', r"no such tool \(none has a \[tools.NAME\] table"),
        (TOOL + '[links.T2_C]\ntool = "xrdcp"', "no such site"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"\nsource = "/a"', r"want \{lfn\} or \{path\} in it"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"\nsource = "/a/{pfn}"', r"\{pfn\} is none of \{lfn\}, \{path\}"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"\nsource = "-x{lfn}"', "may take it for an option"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"\nsource = "{path}"', "may take it for an option"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"\nsource = "https://me:secret@host{lfn}"', "want no password in it"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"\nsource = "/a b{lfn}"', "want text without blanks"),
        (TOOL + '[links.T2_B]\ntool = "xrdcp"\nsource = 7', "want text without blanks"),
    ],
)
def test_a_fault_is_named(state: Path, text: str, why: str) -> None:
    with pytest.raises(BadSettings, match=why) as refused:
        load(state, text + "\n")
    assert "secret" not in str(refused.value)

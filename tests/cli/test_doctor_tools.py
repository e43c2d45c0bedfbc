"""What `doctor` says of the tools on a site's links."""

from __future__ import annotations

from pathlib import Path

from streams.cli import doctor
from streams.core.names import Site
from streams.settings import Registry, Settings
from streams.settings.tools import LinkTool, Tool


def test_a_tool_that_is_not_installed_is_named(tmp_path: Path) -> None:
    tools = {
        Site(site): LinkTool(Tool(name, (program, "{source}", "{target}")), "/a{lfn}")
        for site, name, program in (("T2_B", "cp", "cp"), ("T2_C", "xrdcp", "no-such-program"))
    }
    settings = Settings(Registry(), Site("T1_A"), tmp_path, tmp_path, tmp_path, tmp_path, link_tools=tools)
    there, missing = doctor._tools(settings)
    assert (there.name, there.state, there.words) == ("tool cp", "ok", "cp is installed; it brings files from T2_B")
    assert (missing.name, missing.state) == ("tool xrdcp", "warn")
    assert missing.words.startswith("no-such-program is not installed here; files from T2_C")

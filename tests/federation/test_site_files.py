"""What `up` writes of a site's own settings, and that it keeps what somebody added."""

from __future__ import annotations

from pathlib import Path

from streams.federation import plan

WRITTEN = 'site = "T1_A"\n\n[endpoint]\nurl = "file:///data"\n'


def test_a_file_that_says_more_is_kept_and_one_that_says_else_is_not(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    assert not plan.says(path, WRITTEN)
    for text, kept in (
        (WRITTEN, True),
        (WRITTEN + '[stores.cern]\nurl = "http://127.0.0.1:9000"\nbucket = "raw"\n', True),
        (WRITTEN.replace("/data", "/elsewhere"), False),
        ('site = "T1_A"\n', False),
        ("not TOML", False),
    ):
        path.write_text(text)
        assert plan.says(path, WRITTEN) is kept, text

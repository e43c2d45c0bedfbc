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


def test_what_a_person_wrote_of_keys_is_kept(tmp_path: Path) -> None:
    record = plan.planned(["T1_A", "T2_B"], None, workers=1, credit_bytes=1 << 20, home=str(tmp_path))
    ours = dict(plan.site_files(tmp_path, record))[tmp_path / "sites.toml"]
    keys = 'root_key = "ed25519:xyz"\nrevoked_keys = { "0123456789abcdef" = 2026-01-31T12:00:00+00:00 }\n'
    (tmp_path / "sites.toml").write_text(ours + keys)
    again = dict(plan.site_files(tmp_path, record))[tmp_path / "sites.toml"]
    assert again == ours + keys
    (tmp_path / "sites.toml").write_text("sites = 7")
    assert dict(plan.site_files(tmp_path, record))[tmp_path / "sites.toml"] == ours

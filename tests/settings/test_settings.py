"""Layers, origins and faults of the configuration, over real files in a temporary directory."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from streams.core.names import Site
from streams.errors import NeverWorks, NotFound, UsageError
from streams.settings import BadSettings, Registry, Settings, SiteEntry, load_settings

SITES = """
partitions = 4
table_version = 3
[sites.T1_A]
bootstrap = "127.0.0.1:22001"
[sites.T1_A.kafka]
security.protocol = "SASL_SSL"
"sasl.username" = "everyone"
[sites.T2_B]
bootstrap = "b1.example:9092, b2.example:9092"
auditor = true
replication = 2
"""
SITE = """
site = "T1_A"
datadir = "worker-0"
[endpoint]
url = "file:///data/a"
[policy]
lease_s = 7
[kafka]
sasl.username = "a"
sasl.password = "hush-a"
[kafka.T2_B]
sasl.password = "hush-b"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "T1_A").mkdir()
    (tmp_path / "sites.toml").write_text(SITES)
    (tmp_path / "T1_A" / "site.toml").write_text(SITE)
    return tmp_path


def load(
    state: Path, *, environ: dict[str, str] | None = None, files: tuple[Path, ...] = (), **flags: object
) -> Settings:
    return load_settings(environ={"T2G_STATE": str(state), **(environ or {})}, files=files, **flags)


def test_a_region_is_a_word_that_all_sites_must_have_alike(state: Path) -> None:
    plain = load(state).registry
    text = SITES.replace("auditor = true", 'auditor = true\nregion = "east-1"')
    (state / "sites.toml").write_text(text)
    found = load(state).registry
    assert (found.entry("T2_B").region, found.regions) == ("east-1", {"T2_B": "east-1"})
    assert (plain.regions, plain.digest == found.digest) == ({}, False)
    for wrong in ("7", '"two words"', f'"{"x" * 41}"'):
        (state / "sites.toml").write_text(text.replace('"east-1"', wrong))
        with pytest.raises(BadSettings, match=r"sites.T2_B.region = .*: want at most 40 letters"):
            load(state)


def test_a_door_is_announced_as_host_and_port(state: Path) -> None:
    own = state / "T1_A" / "site.toml"
    for good in ("door.example.org", "door.example.org:8443", "[2001:db8::1]:8443", "10.0.0.1"):
        own.write_text(f'{SITE}\n[door]\nannounce = "{good}"\n')
        assert load(state, environ={"T2G_SITE_CONFIG": str(own)}).door_announce == good
    for bad in ("", "http://door", "door:0", "door:99999", "door:x", "me@door", "door/path", "::1"):
        own.write_text(f'{SITE}\n[door]\nannounce = "{bad}"\n')
        with pytest.raises(BadSettings, match="want HOST or HOST:PORT"):
            load(state, environ={"T2G_SITE_CONFIG": str(own)})


def test_links_have_rates(state: Path) -> None:
    own = state / "T1_A" / "site.toml"
    own.write_text(f"{SITE}\n[links.T2_B]\nrate = 100_000_000\n")
    settings = load(state, environ={"T2G_SITE_CONFIG": str(own)})
    assert settings.link_rates == {"T2_B": 100_000_000}
    assert load(state).link_rates == {}
    for text, why in (
        ("[links.T2_B]\nrate = 99_999", "want bytes a second, 100000 or more"),
        ('[links.T2_B]\nrate = "fast"', "want bytes a second"),
        ("[links.T2_C]\nrate = 1_000_000", "no such site"),
        ("[links.T2_B]\nspeed = 1_000_000", "is not a setting of a link, which has a rate"),
    ):
        own.write_text(f"{SITE}\n{text}\n")
        with pytest.raises(BadSettings, match=why):
            load(state, environ={"T2G_SITE_CONFIG": str(own)})


def test_a_site_reads_its_registry_and_its_own_file(state: Path) -> None:
    settings = load(state, environ={"T2G_SITE_CONFIG": str(state / "T1_A" / "site.toml")})
    assert (settings.site, settings.here, settings.peers) == ("T1_A", "T1_A", ("T2_B",))
    assert (settings.registry.partitions, settings.registry.table_version) == (4, 3)
    assert settings.entry("T2_B") == SiteEntry(Site("T2_B"), "b1.example:9092, b2.example:9092", True, replication=2)
    assert settings.datadir == state / "T1_A" / "worker-0", "a path in a file is relative to that file"
    assert settings.endpoint_url == "file:///data/a"
    assert settings.policy.lease_s == 7
    assert settings.policy.credit_bytes == settings.registry.credit_bytes
    assert settings.kafka_of("T1_A") == {
        "security.protocol": "SASL_SSL",
        "sasl.username": "a",
        "sasl.password": "hush-a",
    }
    assert settings.kafka_of("T2_B") == {"sasl.password": "hush-b"}


def test_naming_the_site_finds_its_file_in_the_state(state: Path) -> None:
    assert load(state, site="T1_A").endpoint_url == "file:///data/a"
    assert load(state, site="T2_B").endpoint_url == ""
    assert load(state, site="T2_B").datadir == state / "T2_B" / "worker-0"


def test_flag_beats_environment_beats_files_beats_default(state: Path, tmp_path: Path) -> None:
    near, far = tmp_path / "near.toml", tmp_path / "far.toml"
    near.write_text("[policy]\nlease_s = 3\n")
    far.write_text("web_port = 6000\n[policy]\nlease_s = 4\nsettle_s = 1.5\n")
    settings = load(
        state,
        environ={"T2G_WEB_PORT": "6066", "T2G_POLICY_REPORT_S": "9", "T2G_KAFKA_SASL_PASSWORD": "from-env"},
        files=(near, far),
        site="T1_A",
        policy_report_s=8,
    )
    policy = settings.policy
    assert (policy.report_s, settings.web_port, policy.lease_s, policy.settle_s) == (8, 6066, 3, 1.5)
    assert policy.undecided_s == 60
    assert settings.kafka_of("T1_A")["sasl.password"] == "from-env"
    origins = {v.name: v.origin for v in settings.values}
    assert origins["policy.report_s"] == "flag --policy-report-s"
    assert origins["web_port"] == "T2G_WEB_PORT"
    assert origins["policy.lease_s"] == str(near)
    assert origins["policy.settle_s"] == str(far)
    assert origins["policy.undecided_s"] == "default"
    assert origins["partitions"] == str(state / "sites.toml")
    assert origins["credit_bytes"] == "default"


def test_secrets_are_masked_wherever_they_could_be_shown(state: Path) -> None:
    settings = load(state, site="T1_A")
    shown = {v.name: v.value for v in settings.values}
    assert shown["kafka.T1_A.sasl.password"] == "***"
    assert shown["kafka.T1_A.sasl.username"] == "a"
    assert "hush" not in repr(settings) + repr(settings.values)


def test_a_codec_is_one_of_those_known(state: Path) -> None:
    assert load(state, site="T1_A").policy.payload_codec == "lz4"
    assert load(state, site="T1_A", environ={"T2G_POLICY_PAYLOAD_CODEC": "zstd"}).policy.payload_codec == "zstd"
    with pytest.raises(BadSettings, match="want one of lz4, zstd, none"):
        load(state, site="T1_A", policy_payload_codec="gzip")


def test_all_faults_are_reported_together(state: Path) -> None:
    (state / "sites.toml").write_text(
        'partitons = 4\npayload_bytes = 1\n[sites.T1_A]\nbootstrap = "nowhere"\n[sites."T-9"]\nbootstrap = "x:1"\n'
        '[sites.T2_B]\nbootstrap = "b:1"\nkafka = {acks = "0"}\n'
    )
    with pytest.raises(BadSettings) as caught:
        load(state, environ={"T2G_WEB_PORT": "many", "T2G_DATADRI": "x"}, site="T1_A", policy_lease_s=-1)
    faults = caught.value.faults
    for word in ("partitons", "payload_bytes", "T1_A.bootstrap", "T-9", "acks", "web_port", "T2G_DATADIR", "lease_s"):
        assert any(word in fault for fault in faults), f"{word} missing from {faults}"
    assert len(faults) == 8
    assert isinstance(caught.value, NeverWorks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("sites.toml", "partitions = [", "not TOML"),
        ("sites.toml", "partitions = 4", "no \\[sites.NAME\\]"),
        ("sites.toml", 'credit_bytes = 1048576\npayload_bytes = 1048576\n[sites.T1_A]\nbootstrap = "a:1"', "4 ×"),
        ("T1_A/site.toml", 'site = "T2_B"', "the file of T2_B"),
        ("T1_A/site.toml", "[endpoint]\nurl = 'data'", "want a URL"),
        ("T1_A/site.toml", "[endpoint]\nurl = 'memory://'", "keeps no site's files"),
        ("T1_A/site.toml", b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(state: Path, name: str, text: str | bytes, word: str) -> None:
    (state / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadSettings, match=word) as caught:
        load(state, site="T1_A")
    assert name in str(caught.value)


def test_no_federation_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no federation here .*sites\.toml.*transfer2go up.*T2G_SITES"):
        load(tmp_path)
    assert load_settings(need_federation=False, environ={"T2G_STATE": str(tmp_path)}, files=()).registry == Registry()


def test_an_unknown_or_unnamed_site_is_said(state: Path) -> None:
    with pytest.raises(NotFound, match=r"no site T9_Z.*T1_A, T2_B"):
        load(state, site="T9_Z")
    with pytest.raises(UsageError, match="which site"):
        assert load(state).here
    with pytest.raises(BadSettings, match="does not exist"):
        load(state, environ={"T2G_SITE_CONFIG": str(state / "none.toml")})
    with pytest.raises(TypeError, match="colour"):
        load(state, colour="red")


def test_digest_changes_with_what_workers_of_a_site_must_share() -> None:
    a, b = SiteEntry(Site("A"), "x:1"), SiteEntry(Site("B"), "y:2")
    base = Registry(sites=(a, b)).digest
    assert Registry(sites=(b, SiteEntry(Site("A"), "elsewhere:1"))).digest == base
    assert (
        len({base, Registry(sites=(a,)).digest, Registry(4, sites=(a, b)).digest, Registry(8, 2, sites=(a, b)).digest})
        == 4
    )


def test_settings_travel_to_a_child_process(state: Path) -> None:
    settings = load(state, site="T1_A")
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert again.kafka_of("T1_A") == settings.kafka_of("T1_A")
    assert hash(again) == hash(settings)


def test_a_small_credit_shrinks_the_requests(state: Path) -> None:
    (state / "sites.toml").write_text(SITES.replace("partitions = 4", "partitions = 4\ncredit_bytes = 8000000"))
    policy = load(state, site="T1_A").policy
    assert (policy.credit_bytes, policy.request_bytes) == (8_000_000, 4_000_000)
    with pytest.raises(BadSettings, match="over credit_bytes"):
        load(state, site="T1_A", policy_request_bytes=9_000_000)


def test_a_workers_api_is_bound_to_this_machine_unless_somebody_says_otherwise(state: Path) -> None:
    assert load(state, site="T1_A").web_host == "127.0.0.1"
    assert load(state, site="T1_A", environ={"T2G_WEB_HOST": "::"}).web_host == "::"
    with pytest.raises(BadSettings, match=r"T2G_WEB_HOST.*want a host or an address to bind"):
        load(state, site="T1_A", environ={"T2G_WEB_HOST": "http://here/"})

"""Client configuration: settings reach both client libraries or are refused; guarantees cannot be set away."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError
from faust import auth

from streams.core.names import Site
from streams.errors import NeverWorks, NotAllowed, NotFound, Temporary
from streams.kafka import client
from streams.settings import Settings, SiteEntry
from tests.kafka.broker_process import TLS

A, B = Site("T1_A"), Site("T2_B")


def with_kafka(settings: Settings, bootstrap: str = "127.0.0.1:9", **kafka: str) -> Settings:
    named = {name.replace("_", "."): value for name, value in kafka.items()}
    entries = (SiteEntry(A, bootstrap, kafka=named), SiteEntry(B, "127.0.0.1:9"))
    return replace(settings, registry=replace(settings.registry, sites=entries))


def credentials(settings: Settings, **kafka: str) -> Any:
    return client.faust_broker(with_kafka(settings, **kafka), A, auth).get("broker_credentials")


def test_every_bootstrap_address_reaches_the_agents(settings: Settings) -> None:
    found = client.faust_broker(with_kafka(settings, "a.example:9092, b.example:9093"), A, auth)
    assert found == {"broker": "kafka://a.example:9092;kafka://b.example:9093"}


def test_tls_alone_is_translated(settings: Settings) -> None:
    found = credentials(
        settings,
        security_protocol="ssl",
        ssl_ca_location=str(TLS / "certificate.pem"),
        ssl_certificate_location=str(TLS / "certificate.pem"),
        ssl_key_location=str(TLS / "key.pem"),
    )
    assert isinstance(found, auth.SSLCredentials)
    assert found.context.verify_mode is ssl.CERT_REQUIRED
    assert found.context.check_hostname
    assert "tests of transfer2go" in str(found.context.get_ca_certs())


def test_checks_are_only_dropped_when_asked(settings: Settings) -> None:
    ca = str(TLS / "certificate.pem")
    names = credentials(
        settings, security_protocol="SSL", ssl_ca_location=ca, ssl_endpoint_identification_algorithm="none"
    )
    assert (names.context.check_hostname, names.context.verify_mode) == (False, ssl.CERT_REQUIRED)
    nothing = credentials(settings, security_protocol="SSL", enable_ssl_certificate_verification="false")
    assert nothing.context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_logins_are_translated(settings: Settings, mechanism: str) -> None:
    found = credentials(
        settings,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanisms=mechanism,
        sasl_username="u",
        sasl_password="hush",
    )
    assert (found.username, found.password, found.mechanism.value) == ("u", "hush", mechanism)
    assert found.ssl_context is None
    assert found.protocol.value == "SASL_PLAINTEXT"


@pytest.mark.parametrize(
    ("kafka", "word"),
    [
        ({"security_protocol": "SSL", "ssl_keystore_location": "/k.p12"}, r"no equal of ssl\.keystore\.location"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "OAUTHBEARER"),
        ({"security_protocol": "SSL", "ssl_ca_location": "/nowhere.pem"}, "TLS settings cannot be used"),
        ({"security_protocol": "TLS"}, "unknown security.protocol TLS"),
    ],
)
def test_what_the_agents_cannot_do_is_refused(settings: Settings, kafka: dict[str, str], word: str) -> None:
    with pytest.raises(NeverWorks, match=word):
        credentials(settings, **kafka)


def test_a_sites_own_settings_win_over_ours_and_keep_the_guarantees(settings: Settings) -> None:
    ours = with_kafka(settings, request_timeout_ms="1234", fetch_wait_max_ms="7", security_protocol="SSL")
    producer = client.producer_config(ours, A, "w0")
    consumer = client.consumer_config(ours, A)
    assert (producer["request.timeout.ms"], consumer["fetch.wait.max.ms"]) == ("1234", "7")
    assert producer["security.protocol"] == consumer["security.protocol"] == "SSL"
    assert (producer["acks"], producer["enable.idempotence"]) == ("all", True)
    assert (consumer["isolation.level"], consumer["enable.auto.commit"]) == ("read_uncommitted", False)
    assert client.producer_config(ours, A, "w0", chunks=True)["queue.buffering.max.kbytes"] == 4096


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.UNKNOWN_TOPIC_OR_PART, NotFound),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, NotAllowed),
        (KafkaError.MSG_SIZE_TOO_LARGE, NeverWorks),
        (KafkaError._TRANSPORT, Temporary),
        (KafkaError.NOT_ENOUGH_REPLICAS, Temporary),
    ],
)
def test_an_error_says_what_where_and_whether_to_try_again(code: int, kind: type[Exception]) -> None:
    error = client.error_of(KafkaError(code), "sending to transfers", "cluster of T1_A")
    assert type(error) is kind
    assert str(error).startswith("sending to transfers failed: ")
    assert "(cluster of T1_A)" in str(error)


def test_silence_after_a_refused_login_is_called_a_refused_login() -> None:
    complaints = client.Complaints("cluster of T1_A")
    assert type(complaints.error_of(KafkaError(KafkaError._TIMED_OUT), "asking")) is Temporary
    complaints(KafkaError(KafkaError._AUTHENTICATION, "bad password"))
    assert type(complaints.error_of(KafkaError(KafkaError._TIMED_OUT), "asking")) is NotAllowed
    assert type(complaints.error_of(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "asking")) is NotFound

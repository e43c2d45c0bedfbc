"""Client configuration towards a site's cluster, its translation for Faust, and Kafka's errors in our words.

Every confluent-kafka client of the product is configured here, so that security, logging and patience are the same
everywhere. No topic, record or policy is known here. librdkafka's log lines go to the logger `streams.kafka`.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from streams import waits
from streams.errors import NeverWorks, NotAllowed, NotFound, Temporary, Transfer2goError
from streams.settings import Settings

log = logging.getLogger("streams.kafka")
log.addHandler(logging.NullHandler())
"""Without a handler of the program's own, nothing is printed: stderr belongs to the CLI."""

Config = dict[str, Any]

CONTROL_BUFFER_KBYTES = 32 * 1024
"""Records of control waiting for their acknowledgement; a full buffer is said to the sender (Temporary)."""
CHUNK_RECORD_BYTES_MAX = 9 * 1024 * 1024
"""A payload record of 8 MiB with its headers and batch overhead."""

_PATIENCE: Config = {
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    "retry.backoff.ms": 50,
    "socket.connection.setup.timeout.ms": 5000,
    "log.connection.close": False,
    "log_level": 4,
}
_READING: Config = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "allow.auto.create.topics": False,
}
_TRANSLATED = {
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.kerberos.service.name",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
}


def cluster(settings: Settings, site: str) -> str:
    """The place that errors name."""
    return f"cluster of {site}, {settings.entry(site).bootstrap}"


class Complaints:
    """What a client says on its own account (its error_cb): logged, and kept to explain a later failure."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.last = ""
        self.down_since_s: float | None = None
        """Monotonic time when the last broker went away; whoever hears from one again clears it."""
        self.refused: KafkaError | None = None
        self.outages = 0
        """How often all brokers were gone, or a topic was not known: a client made before may then read no more."""

    def __call__(self, error: KafkaError) -> None:
        log.warning("%s: %s", self.where, error.str())
        self.last = error.str()
        if error.code() in _NOT_ALLOWED:
            self.refused = error
        if error.code() == KafkaError._ALL_BROKERS_DOWN or error.code() in _NO_TOPIC:
            self.outages += 1
        if error.code() == KafkaError._ALL_BROKERS_DOWN and self.down_since_s is None:
            self.down_since_s = time.monotonic()

    def error_of(self, error: KafkaError, doing: str) -> Transfer2goError:
        """As `error_of`; silence after a refused login is called a refused login."""
        if self.refused is not None and error.code() in _SILENCE:
            error = self.refused
        return error_of(error, doing, self.where)


def base_config(settings: Settings, site: str) -> Config:
    """What every client towards `site` needs: addresses, security, patience, and where errors are logged.

    `error_cb` is a Complaints.
    """
    complaints = Complaints(cluster(settings, site))
    own = settings.kafka_of(site)
    addresses = {"bootstrap.servers": settings.entry(site).bootstrap}
    return {**_PATIENCE, **own, **addresses, "error_cb": complaints, "logger": log}


def producer_config(settings: Settings, site: str, client_id: str, *, chunks: bool = False) -> Config:
    """Control: at once, acknowledged by all, in order, never twice. `chunks`: large records, few in memory.

    An unacknowledged record is given up after 30 s (60 s for chunks): by then its fact is owed again anyway. A site's
    own settings win, save those that carry a guarantee, which a configuration may not hold.
    """
    config: Config = {
        **base_config(settings, site),
        "client.id": client_id,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 0,
        "delivery.timeout.ms": 30_000,
        "request.timeout.ms": 10_000,
        "topic.metadata.propagation.max.ms": 5000,
        "queue.buffering.max.kbytes": CONTROL_BUFFER_KBYTES,
    }
    if chunks:
        config |= {
            "linger.ms": 2,
            "delivery.timeout.ms": 60_000,
            "message.max.bytes": CHUNK_RECORD_BYTES_MAX,
            "queue.buffering.max.kbytes": max(settings.chunk_queue_bytes, 5 * settings.registry.payload_bytes) // 1024,
        }
    return config | dict(settings.kafka_of(site))


def consumer_config(settings: Settings, site: str, *, large_records: bool = False) -> Config:
    """For `assign()`-based reading: no group membership, nothing committed, every end of partition reported.

    `fetch.queue.backoff.ms` is 1000 by default: a full prefetch queue would then sleep a second
    (docs/PLATFORM.md). A partition joins only when the fetch under way comes back, and the end behind a transaction's
    marker is only heard when one comes back empty: hence 100 ms instead of 500 for `fetch.wait.max.ms`.
    """
    return {
        **base_config(settings, site),
        **_READING,
        "group.id": "t2g-reader",
        "auto.offset.reset": "earliest",
        "isolation.level": "read_uncommitted",
        "enable.partition.eof": True,
        "fetch.queue.backoff.ms": 2,
        "fetch.wait.max.ms": 100,
        "fetch.max.bytes": CHUNK_RECORD_BYTES_MAX if large_records else 16 * 1024 * 1024,
        "fetch.message.max.bytes": 1024 * 1024,
        "receive.message.max.bytes": 100_000_000,
        "queued.max.messages.kbytes": 16 * 1024,
        **settings.kafka_of(site),
    }


def member_config(settings: Settings, site: str, group: str, *, session_s: float) -> Config:
    """For a member of a consumer group that only wants to know which partitions are its: nothing is committed.

    Who is silent for `session_s` is out; members that stay keep what they have when others come and go.
    """
    return {
        **base_config(settings, site),
        **_READING,
        "group.id": group,
        "auto.offset.reset": "latest",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": int(session_s * 1000),
        "heartbeat.interval.ms": 500,
        "max.poll.interval.ms": 60_000,
        "topic.metadata.refresh.interval.ms": 30_000,
        **settings.kafka_of(site),
    }


def make_producer(config: Config) -> Producer:
    """A Producer, or NeverWorks naming the setting that librdkafka refuses."""
    with _refusals(config):
        return Producer(config)


def make_consumer(config: Config) -> Consumer:
    with _refusals(config):
        return Consumer(config)


def make_admin(settings: Settings, site: str) -> tuple[AdminClient, Complaints]:
    """An AdminClient of `site`'s cluster and what explains its failures, or NeverWorks naming the refused setting."""
    config = base_config(settings, site)
    with _refusals(config):
        return AdminClient(config), config["error_cb"]


def metadata(kafka: Consumer | AdminClient, complaints: Complaints) -> Any:
    """The cluster's brokers and topics. NotAllowed as soon as the login is refused, Temporary after 5 s of silence."""
    for answer_s in (1.0, 4.0):
        try:
            with waits.on(f"the {complaints.where} to answer"):
                return kafka.list_topics(timeout=answer_s)
        except KafkaException as e:
            failed = e
            kafka.poll(0)  # serves what the client has to say about it
            if complaints.refused is not None:
                break
    raise complaints.error_of(failed.args[0], "asking for the topics") from failed


def answer(future: Future[Any], complaints: Complaints, doing: str) -> Any:
    """What an AdminClient's call came to, or its failure in our words."""
    try:
        return future.result()
    except KafkaException as error:
        raise complaints.error_of(error.args[0], doing) from error


@contextmanager
def _refusals(config: Mapping[str, object]) -> Iterator[None]:
    """librdkafka's refusal of a configuration, in our words and without its values, which may be secret."""
    where = str(config["bootstrap.servers"])
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() == KafkaError._CRIT_SYS_RESOURCE:
            what = f"no Kafka client can be made: {error.args[0].str()}"
            raise Temporary(what, where, "has this machine threads, memory and descriptors left?") from error
        what = f"the Kafka client refuses its settings: {error.args[0].str()}"
        then = "look at [sites.SITE.kafka] in sites.toml and [kafka] in site.toml"
        raise NeverWorks(what, where, then) from error


_NOT_ALLOWED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._SSL,
}
_SILENCE = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}
_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_NEVER = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_CONFIG, KafkaError.INVALID_PARTITIONS}


def error_of(error: KafkaError, doing: str, where: str) -> Transfer2goError:
    """Kafka's error as one of ours: `doing` what, at which site or topic (`where`)."""
    code, text = error.code(), f"{doing} failed: {error.str()}"
    if code in _NO_TOPIC:
        return NotFound(text, where=where, next="run `transfer2go topic create`")
    if code in _NOT_ALLOWED:
        return NotAllowed(text, where=where, next="check the credentials in [kafka] of sites.toml and site.toml")
    if code in _NEVER:
        return NeverWorks(text, where=where)
    return Temporary(text, where=where, next="is the broker up? see `transfer2go status`, then try again")


def faust_broker(settings: Settings, site: str, auth: ModuleType) -> dict[str, object]:
    """Faust's `broker` and `broker_credentials` for `site`, from the same settings that librdkafka gets.

    `auth` is the module `faust.auth`: this package imports no framework. A security setting that aiokafka has no word
    for is NeverWorks: a worker must not be less secure than asked. Other client settings concern librdkafka only.
    """
    kafka = settings.kafka_of(site)
    hosts = [host.strip() for host in settings.entry(site).bootstrap.split(",")]
    broker: dict[str, object] = {"broker": ";".join(f"kafka://{host}" for host in hosts)}
    odd = sorted(k for k in kafka if k.startswith(("ssl.", "sasl.", "security.")) and k not in _TRANSLATED)
    if odd:
        raise NeverWorks(f"the agents' client has no equal of {', '.join(odd)}", where=f"kafka settings of {site}")
    protocol = kafka.get("security.protocol", "plaintext").upper()
    context = _ssl_context(kafka, site) if protocol in ("SSL", "SASL_SSL") else None
    if protocol == "SSL":
        broker["broker_credentials"] = auth.SSLCredentials(context)
    elif protocol in ("SASL_SSL", "SASL_PLAINTEXT"):
        broker["broker_credentials"] = _sasl(kafka, site, auth, context)
    elif protocol != "PLAINTEXT":
        raise NeverWorks(f"unknown security.protocol {protocol}", where=f"kafka settings of {site}")
    return broker


def _sasl(kafka: Mapping[str, str], site: str, auth: ModuleType, context: ssl.SSLContext | None) -> object:
    mechanism = kafka.get("sasl.mechanism", kafka.get("sasl.mechanisms", "GSSAPI")).upper()
    if mechanism == "GSSAPI":
        service = kafka.get("sasl.kerberos.service.name", "kafka")
        return auth.GSSAPICredentials(kerberos_service_name=service, ssl_context=context, mechanism=mechanism)
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise NeverWorks(
            f"agents cannot log in with sasl.mechanism {mechanism}",
            where=f"kafka settings of {site}",
            next="use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or GSSAPI",
        )
    return auth.SASLCredentials(
        username=kafka.get("sasl.username"),
        password=kafka.get("sasl.password"),
        ssl_context=context,
        mechanism=mechanism,
    )


def _ssl_context(kafka: Mapping[str, str], site: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=kafka.get("ssl.ca.pem"))
        if place := kafka.get("ssl.ca.location"):
            context.load_verify_locations(**{"capath" if Path(place).is_dir() else "cafile": place})
        if certificate := kafka.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, kafka.get("ssl.key.location"), kafka.get("ssl.key.password"))
    except (OSError, ValueError) as e:
        raise NeverWorks(f"TLS settings cannot be used: {e}", where=f"kafka settings of {site}") from e
    if kafka.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    if kafka.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

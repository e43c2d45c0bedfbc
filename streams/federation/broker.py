"""One real Kafka node (KRaft broker and controller in one process) a site: its settings, format, readiness, faults."""

from __future__ import annotations

import base64
import re
import shutil
import socket
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.core.names import shown
from streams.errors import NeverWorks
from streams.federation.java import LIGHT, Jvm

RECORD_BYTES_MAX = 9 * 1024 * 1024  # a payload record of 8 MiB and its header, key and headers
SEGMENT_BYTES = 64 * 1024 * 1024
HEAP = ("-Xms64m", "-Xmx192m", *LIGHT)
_TAIL_BYTES = 256 << 10
_FAULT = re.compile(r"\b(?:FATAL|ERROR)\b")


@dataclass(frozen=True, slots=True)
class Broker:
    """A site's node: `directory` holds its settings and log, the ports are on loopback."""

    site: str
    directory: Path
    port: int
    controller_port: int

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def properties_path(self) -> Path:
        return self.directory / "server.properties"

    @property
    def log_dir(self) -> Path:
        return self.directory / "log"

    @property
    def cluster_id(self) -> str:
        """As it was formatted with; "" before that."""
        try:
            lines = (self.log_dir / "meta.properties").read_text().splitlines()
        except OSError:
            return ""
        return next((line.partition("=")[2].strip() for line in lines if line.startswith("cluster.id=")), "")


def server_properties(broker: Broker) -> dict[str, str]:
    """The node's settings. One node: every internal topic has one replica and few partitions."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{broker.controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{broker.port},CONTROLLER://127.0.0.1:{broker.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker.port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(broker.log_dir),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "default.replication.factor": "1",
        "group.initial.rebalance.delay.ms": "0",
        # Journals are kept for ever; payload topics bring their own retention.bytes. The check must be quick:
        # at 100 MB/s the usual five minutes (and one more until a segment is unlinked) would be 36 GB.
        "log.retention.ms": "-1",
        "log.retention.check.interval.ms": "5000",
        "log.initial.task.delay.ms": "5000",
        "log.segment.delete.delay.ms": "2000",
        "log.segment.bytes": str(SEGMENT_BYTES),
        "log.index.size.max.bytes": str(1024 * 1024),
        "log.cleaner.dedupe.buffer.size": "4194304",
        "message.max.bytes": str(RECORD_BYTES_MAX),
        "replica.fetch.max.bytes": str(RECORD_BYTES_MAX),
        "socket.send.buffer.bytes": "1048576",
        "socket.receive.buffer.bytes": "1048576",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "group.coordinator.threads": "1",
        # After kill -9 the node's own old registration must expire before it is let in again.
        "broker.heartbeat.interval.ms": "1000",
        "broker.session.timeout.ms": "3000",
        # Twice a second, a record that says nothing is written, synced and read by all parts of the node.
        "metadata.max.idle.interval.ms": "10000",
    }


def format_if_new(broker: Broker, jvm: Jvm) -> bool:
    """Write the settings, and give a new directory its cluster id; True when it was new."""
    broker.directory.mkdir(parents=True, exist_ok=True)
    write_properties(broker.properties_path, server_properties(broker))
    if (broker.log_dir / "meta.properties").exists():
        return False
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    if cluster_id.startswith("-"):  # would be read as an option
        cluster_id = "A" + cluster_id[1:]
    command = jvm.command(
        "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(broker.properties_path), flags=HEAP
    )
    ended = subprocess.run(command, env=jvm.environment(), capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        raise NeverWorks(f"the broker of {broker.site} cannot format its log: {last[0]}", str(broker.log_dir))
    return True


def write_properties(path: Path, properties: dict[str, str]) -> None:
    """A Java properties file, replaced as a whole."""
    part = path.with_suffix(".part")
    part.write_text("".join(f"{key}={_escaped(value)}\n" for key, value in properties.items()), "ascii")
    part.replace(path)


def _escaped(value: str) -> str:
    """A value as Java reads it: the file is Latin-1 to it, a backslash an escape, a space in front nothing."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    plain = "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)
    return "\\" + plain if plain.startswith(" ") else plain


def is_ready(bootstrap: str, timeout_s: float = 2.0, *, cluster_id: str = "") -> bool:
    """Whether a broker answers and lists itself; with `cluster_id`, only the one of that cluster.

    Without it a stranger that took the port first would be taken for ours.
    """
    host, _, port = bootstrap.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout_s).close()
    except OSError:
        return False  # at once, where the client would try again until its time is over
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 2000})
    try:
        found = admin.list_topics(timeout=timeout_s)
    except KafkaException:
        return False
    return bool(found.brokers) and cluster_id in ("", found.cluster_id)


def free_if_full(directory: Path) -> int | None:
    """Free bytes of the disk that the directory is on, if it is full; None if it is not, or nobody can tell.

    A broker opens files of a segment's size, and ends itself when one cannot be written.
    """
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return None
    return free if free < SEGMENT_BYTES else None


def last_fault(log: Path) -> str:
    """The last line of an error near the end of a broker's log, cut to what can be shown; "" for none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError:
        return ""
    lines = [line for line in tail.decode(errors="replace").splitlines() if _FAULT.search(line)]
    return shown(lines[-1].strip(), 300) if lines else ""

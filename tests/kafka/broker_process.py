"""One real broker for the tests of kafka/: a plain and a SASL_SSL listener, stopped and started at will."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from streams.federation import artifacts, broker, java, plan
from streams.federation.process import die_with_parent

TLS = Path(__file__).parent / "tls"
"""A certificate of these tests only, for 127.0.0.1."""
USER, PASSWORD = "mover", "hush-hush"
_JAAS = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'


def _free_ports(home: Path) -> list[int]:
    """Three, of those that a local federation would take: below what systems hand out for outgoing connections, or one
    could be taken between the choice and the start (seen).
    """
    (site,) = plan.planned(["T1_A"], None, workers=1, credit_bytes=1, home=str(home)).sites
    return [site.port, site.port + 1, site.port + 2]


@dataclass
class BrokerProcess:
    directory: Path
    cache: Path
    process: subprocess.Popen[bytes] | None = None
    ports: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ports = _free_ports(self.directory)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def secure_bootstrap(self) -> str:
        return f"127.0.0.1:{self.ports[2]}"

    def prepare(self) -> None:
        self._jvm = java.Jvm(
            java.find_java(),
            tuple(artifacts.ensure(artifacts.read_list(), self.cache)),
            artifacts.list_path().with_name("log4j2.properties"),
        )
        self._node = broker.Broker("T1_A", self.directory, self.ports[0], self.ports[1])
        broker.format_if_new(self._node, self._jvm)
        secured = broker.server_properties(self._node)
        secured["listeners"] += f",SASL_SSL://{self.secure_bootstrap}"
        secured["advertised.listeners"] += f",SASL_SSL://{self.secure_bootstrap}"
        secured["listener.security.protocol.map"] += ",SASL_SSL:SASL_SSL"
        (self.directory / "keystore.pem").write_text(
            (TLS / "key.pem").read_text() + (TLS / "certificate.pem").read_text()
        )
        secured |= {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": _JAAS,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.directory / "keystore.pem"),
        }
        broker.write_properties(self._node.properties_path, secured)

    def start(self) -> None:
        with (self.directory / "broker.log").open("ab") as out:
            self.process = subprocess.Popen(
                self._jvm.command("kafka.Kafka", str(self._node.properties_path), flags=broker.HEAP),
                env=self._jvm.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + 60
        while not broker.is_ready(self.bootstrap, 0.5):
            text = (self.directory / "broker.log").read_text()[-2000:]
            assert self.process.poll() is None, f"the broker ended: {text}"
            assert time.monotonic() < deadline, f"the broker does not answer: {text}"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

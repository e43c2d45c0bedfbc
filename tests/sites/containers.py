"""T2G_TEST_BROKERS=containers: the session's brokers from testcontainers, everything else as ever. Untested so far.

`python -m tests.sites.containers STATE CACHE` is the supervisor with its brokers replaced: a site's container listens
on the port that was planned for the site, with the settings that the product gives its own brokers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streams.federation import broker, local, plan, process, supervisor

IMAGE = "apache/kafka:4.3.1"


def up(state: Path, cache: Path, sites: Sequence[str], credit_bytes: int) -> None:
    """As `local.up`; fails where no container engine answers."""
    docker = pytest.importorskip("docker", reason="T2G_TEST_BROKERS=containers needs testcontainers")
    pytest.importorskip("testcontainers")
    docker.from_env().ping()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_spawn", _spawn)
        local.up(state, cache, sites, credit_bytes=credit_bytes)


def _spawn(state: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.sites.containers", str(state), str(cache)]
    with (state / "supervisor.log").open("ab") as out:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    local._supervisors.append(started)
    return started


def _environment(node: broker.Broker) -> dict[str, str]:
    """The broker's settings as the image takes them."""
    settings = broker.server_properties(node) | {
        "listeners": f"PLAINTEXT://0.0.0.0:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "log.dirs": "/tmp/kraft-combined-logs",
    }
    return {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in settings.items()}


class InContainers(supervisor.Supervisor):
    """A broker's part is a process that only waits; its container is started with it and stopped with all."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.containers: dict[str, Any] = {}

    def _broker(self, site: plan.SitePlan) -> process.RunningPart:
        from testcontainers.core.container import DockerContainer

        node = site.broker(self.state)
        if site.name not in self.containers:
            container = DockerContainer(IMAGE).with_bind_ports(node.port, node.port)
            for name, value in _environment(node).items():
                container = container.with_env(name, value)
            self.containers[site.name] = container.start()
        waits = ["sleep", "infinity"]
        return self._part(f"{site.name}-broker", waits, {}, lambda: broker.is_ready(node.bootstrap))

    def stop_all(self) -> None:
        super().stop_all()
        for container in self.containers.values():
            container.stop()


if __name__ == "__main__":
    supervisor.Supervisor = InContainers  # type: ignore[misc]
    sys.exit(supervisor.main(Path(sys.argv[1]), Path(sys.argv[2])))

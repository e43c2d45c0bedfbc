"""What people move files with today, as peers of the mover: their servers over a directory, and their commands.

Each with the settings that are best for it as far as is known, over loopback as the mover is. What is not installed is
left out. A server runs beside what it serves and is ended with it; its processor time counts as a sender's does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.bench.delay import through

HERE = "127.0.0.1"
READY_S = 10.0
ONE_BY_ONE = 100
"""Files of which each has a process of its own: a process takes as long for each of thousands."""
TUNED = {"XRD_CPUSEPGWRTRD": "0"}
"""xrdcp without pages of 4 kB that each have a checksum: the whole's is compared anyway."""


@dataclass(frozen=True)
class Peer:
    """`command` copies everything that is served into a directory. `says`: what it verifies."""

    name: str
    says: str
    command: Callable[[Path], list[str]]
    server: psutil.Process
    environment: dict[str, str] = field(default_factory=dict)
    files: int | None = None
    """How many it moves, where not all."""

    def run(self, target: Path, *, synced: bool) -> tuple[float, float]:
        """Seconds, and the processor's at both ends."""
        before, began = _cpu_s(self.server), time.perf_counter()
        with subprocess.Popen(
            self.command(target), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | self.environment
        ) as process:
            _, said = process.communicate()
            used = _children_cpu_s()
        if process.returncode:
            raise RuntimeError(f"{self.name} ended with {process.returncode}: {said.decode()[-500:]}")
        if synced:
            subprocess.run(["sync", "-f", str(target)], check=True)
        spent = time.perf_counter() - began
        return spent, _children_cpu_s() - used + _cpu_s(self.server) - before


def _cpu_s(process: psutil.Process) -> float:
    """Of it, of those that it has ended, and of those that it has still."""
    alive = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    ended = process.cpu_times()
    return float(sum(one.user + one.system for one in alive) + ended.children_user + ended.children_system)


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _port() -> int:
    with socket.socket() as free:
        free.bind((HERE, 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _server(command: list[str], port: int, log: Path) -> Iterator[psutil.Process]:
    """Once it listens; ended behind."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            until_s = time.monotonic() + READY_S
            while True:
                with contextlib.suppress(OSError), socket.create_connection((HERE, port), 1):
                    break
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError(f"{command[0]} does not listen: {log.read_text()[-500:]}")
                time.sleep(0.05)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Served:
    """What peers serve: `names` below `root`, over a link with a round trip. `scratch` is theirs."""

    root: Path
    names: list[str]
    scratch: Path
    round_trip_s: float
    stack: contextlib.ExitStack

    def start(self, command: Callable[[int], list[str]], log: str) -> tuple[psutil.Process, int]:
        """A server, given its port; and the port at which it is reached over the link."""
        port = _port()
        server = self.stack.enter_context(_server(command(port), port, self.scratch / log))
        return server, self.stack.enter_context(through(port, self.round_trip_s))


@contextlib.contextmanager
def peers(root: Path, scratch: Path, round_trip_s: float = 0.0) -> Iterator[list[Peer]]:
    """Those that are installed, serving what is below `root`, over a link with that round trip."""
    scratch.mkdir(exist_ok=True)
    scratch.chmod(0o777)
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    with contextlib.ExitStack() as stack:
        served = Served(root, names, scratch, round_trip_s, stack)
        yield [*_xrdcp(served), *_rsync(served), *_rclone(served), *_curl(served)]


def _xrdcp(served: Served) -> Iterator[Peer]:
    if shutil.which("xrdcp") is None or shutil.which("xrootd") is None:
        return
    names, scratch = served.names, served.scratch

    def command(port: int) -> list[str]:
        config = scratch / "xrootd.cfg"
        config.write_text(
            f"xrd.port {port}\nall.export /\noss.localroot {served.root}\nxrootd.chksum max 2 adler32\n"
            f"all.adminpath {scratch}\nall.pidpath {scratch}\nxrd.network nodnr\n"
        )
        as_user = ["-R", "nobody"] if os.geteuid() == 0 else []
        return ["xrootd", *as_user, "-c", str(config)]

    server, port = served.start(command, "xrootd.log")
    url = f"root://{HERE}:{port}/"
    checked = ["xrdcp", "--silent", "--cksum", "adler32:source"]
    whole = "adler32 of the whole, the server's against what it received"
    if len(names) == 1:
        for name, environment in (("xrdcp", {}), ("xrdcp, tuned", TUNED)):
            yield Peer(name, whole, lambda to: [*checked, f"{url}/{names[0]}", f"{to}/"], server, environment)
        return
    top = names[0].partition("/")[0]
    yield Peer(
        "xrdcp -r --parallel 4",
        "nothing beyond its protocol",
        lambda to: ["xrdcp", "--silent", "-r", "--parallel", "4", f"{url}/{top}", f"{to}/"],
        server,
        TUNED,
    )
    each = " && ".join(f"xrdcp --silent --cksum adler32:source {url}/{name} $0/" for name in names[:ONE_BY_ONE])
    yield Peer(
        "one xrdcp a file", whole, lambda to: ["sh", "-c", each, str(to)], server, TUNED, min(ONE_BY_ONE, len(names))
    )


def _rsync(served: Served) -> Iterator[Peer]:
    if shutil.which("rsync") is None:
        return

    def command(port: int) -> list[str]:
        config = served.scratch / "rsyncd.conf"
        config.write_text(f"use chroot = no\n[data]\npath = {served.root}\nread only = yes\n")
        return ["rsync", "--daemon", "--no-detach", f"--address={HERE}", f"--port={port}", f"--config={config}"]

    server, port = served.start(command, "rsync.log")
    says = "its own checksum of each file, as it is received"
    yield Peer("rsync -aW", says, lambda to: ["rsync", "-aW", f"rsync://{HERE}:{port}/data/", f"{to}/"], server)


def _rclone(served: Served) -> Iterator[Peer]:
    if shutil.which("rclone") is None:
        return
    config = served.scratch / "rclone.conf"
    config.touch()
    server, port = served.start(
        lambda port: ["rclone", "serve", "http", "--addr", f"{HERE}:{port}", "--read-only", str(served.root)],
        "rclone.log",
    )
    given = {"RCLONE_CONFIG": str(config), "RCLONE_HTTP_URL": f"http://{HERE}:{port}"}
    if len(served.names) == 1:
        more = "--multi-thread-streams 4 --multi-thread-cutoff 64M"
        yield Peer("rclone, 4 streams", *_checked(f"rclone copy {more} :http: $0", served), server, given)
        return
    transfers = "64" if served.round_trip_s else "16"
    command = ["rclone", "copy", "--transfers", transfers, ":http:"]
    yield Peer(f"rclone --transfers {transfers}", "size", lambda to: [*command, str(to)], server, given)


def _curl(served: Served) -> Iterator[Peer]:
    """Of one file: nobody moves thousands so."""
    if len(served.names) > 1 or shutil.which("curl") is None or shutil.which("nginx") is None:
        return
    (name,) = served.names

    def command(port: int) -> list[str]:
        config, scratch = served.scratch / "nginx.conf", served.scratch
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(
            f"{user} daemon off; worker_processes 2; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log;\n"
            f"events {{}}\nhttp {{ access_log off; sendfile on;\n"
            f"server {{ listen {HERE}:{port}; root {served.root}; }} }}\n"
        )
        return ["nginx", "-c", str(config), "-e", str(scratch / "nginx.log")]

    server, port = served.start(command, "nginx-out.log")
    yield Peer("curl", *_checked(f"curl -s -f -o $0/{Path(name).name} http://{HERE}:{port}/{name}", served), server)


def _checked(copy: str, served: Served) -> tuple[str, Callable[[Path], list[str]]]:
    """A command that does not compare checksums, and reading back what came for its adler32, as the others do it."""
    if shutil.which("xrdadler32") is None:
        return "size", lambda to: ["sh", "-c", copy, str(to)]
    read_back = f'{copy} && find "$0" -type f -exec xrdadler32 {{}} +'
    return "adler32, read back behind it", lambda to: ["sh", "-c", read_back, str(to)]

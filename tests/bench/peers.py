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
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


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


@contextlib.contextmanager
def peers(root: Path, scratch: Path) -> Iterator[list[Peer]]:
    """Those that are installed, serving what is below `root`; `scratch` is theirs."""
    scratch.mkdir(exist_ok=True)
    scratch.chmod(0o777)
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    with contextlib.ExitStack() as stack:
        yield [
            *_xrdcp(root, names, scratch, stack),
            *_rsync(root, scratch, stack),
            *_rclone(root, names, scratch, stack),
        ]


def _xrdcp(root: Path, names: list[str], scratch: Path, stack: contextlib.ExitStack) -> Iterator[Peer]:
    if shutil.which("xrdcp") is None or shutil.which("xrootd") is None:
        return
    port, config = _port(), scratch / "xrootd.cfg"
    config.write_text(
        f"xrd.port {port}\nall.export /\noss.localroot {root}\nxrootd.chksum max 2 adler32\n"
        f"all.adminpath {scratch}\nall.pidpath {scratch}\nxrd.network nodnr\n"
    )
    as_user = ["-R", "nobody"] if os.geteuid() == 0 else []
    server = stack.enter_context(_server(["xrootd", *as_user, "-c", str(config)], port, scratch / "xrootd.log"))
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


def _rsync(root: Path, scratch: Path, stack: contextlib.ExitStack) -> Iterator[Peer]:
    if shutil.which("rsync") is None:
        return
    port, config = _port(), scratch / "rsyncd.conf"
    config.write_text(f"use chroot = no\n[data]\npath = {root}\nread only = yes\n")
    command = ["rsync", "--daemon", "--no-detach", f"--address={HERE}", f"--port={port}", f"--config={config}"]
    server = stack.enter_context(_server(command, port, scratch / "rsync.log"))
    says = "its own checksum of each file, as it is received"
    yield Peer("rsync -aW", says, lambda to: ["rsync", "-aW", f"rsync://{HERE}:{port}/data/", f"{to}/"], server)


def _rclone(root: Path, names: list[str], scratch: Path, stack: contextlib.ExitStack) -> Iterator[Peer]:
    if shutil.which("rclone") is None:
        return
    port = _port()
    command = ["rclone", "serve", "http", "--addr", f"{HERE}:{port}", "--read-only", str(root)]
    server = stack.enter_context(_server(command, port, scratch / "rclone.log"))
    given = {"RCLONE_CONFIG": str(scratch / "rclone.conf"), "RCLONE_HTTP_URL": f"http://{HERE}:{port}"}
    (scratch / "rclone.conf").touch()
    name, more = "rclone --transfers 16", ["--transfers", "16"]
    if len(names) == 1:
        name, more = "rclone, 4 streams", ["--multi-thread-streams", "4", "--multi-thread-cutoff", "64M"]
    yield Peer(name, "size", lambda to: ["rclone", "copy", *more, ":http:", str(to)], server, given)

"""The mover: a door and the pull engine through the product's own part files, to sealed and synced, without brokers.

    python -m tests.bench.doors [--rounds N] [--size BYTES] [--disk DIRECTORY]

Beside it, in the same rounds: a C program that receives, checks by zlib's adler32 and writes with one buffer of 1 MiB
(where a C compiler is), `cp` and a sync for the disk, and `xrdcp`, `rsync`, `rclone` and `curl` where they are
installed (peers.py); what is missing is said. Then a quarter of the bytes, and the small files, over a link of 20 ms
(delay.py). The mover verifies adler32 and has all on disk at its end; to a disk its peers are synced behind. Two
processes each: who sends, who receives. Ratios are of one round's two, their median counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from streams.core.manifest import Manifest
from streams.core.names import Adler32, Block, Dataset, Destination, IntentId, Lfn, Site
from streams.core.policy import MANIFEST_ITEMS_MAX
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import Item, ManifestWritten, Message, TransferProgress, Unit
from streams.doors.server import Door
from streams.doors.tickets import Tickets
from streams.planes.carriers.door.addresses import Address, Offer
from streams.planes.carriers.door.pulls import Pulls
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.orders import Open
from streams.storage.posix import PosixEndpoint
from streams.wire import encode
from tests.bench.delay import limit_mb_s, through
from tests.bench.peers import peers

A, B = Site("T1_A"), Site("T2_B")
DATASET = Dataset("/Bench/Doors/RAW")
HERE = "127.0.0.1"
PARTITIONS = 4
ROUND_TRIP_S = 0.02
RECEIVE = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
int main(int argc, char **argv) {  /* PORT HEAD FILE BYTES: ask, skip the head, receive, check, write */
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  int s = socket(AF_INET, SOCK_STREAM, 0), f = open(argv[3], O_CREAT | O_WRONLY | O_TRUNC, 0666);
  if (connect(s, (struct sockaddr *)&to, sizeof to)) return 1;
  if (send(s, argv[2], strlen(argv[2]), 0) < 0) return 1;
  char head[4096], *buffer = malloc(1 << 20);
  int n = 0;
  while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4)) if (recv(s, head + n++, 1, 0) != 1) return 1;
  long left = atol(argv[4]), at = 0;
  unsigned long sum = adler32(0, 0, 0);
  while (left) {
    long got = recv(s, buffer, left < (1 << 20) ? left : (1 << 20), MSG_WAITALL);
    if (got <= 0) return 1;
    sum = adler32(sum, (unsigned char *)buffer, got);
    if (pwrite(f, buffer, got, at) != got) return 1;
    at += got, left -= got;
  }
  printf("%08lx\n", sum);
  return 0;
}
"""


def manifests_of(root: Path) -> list[ManifestWritten]:
    """Of all files below, in order of their names; the checksum of each is read once, before anything is timed."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    found = []
    with contextlib.closing(PosixEndpoint(str(root))) as endpoint:
        for no, start in enumerate(range(0, len(paths), MANIFEST_ITEMS_MAX)):
            items = []
            for path in paths[start : start + MANIFEST_ITEMS_MAX]:
                lfn = Lfn("/" + str(path.relative_to(root)))
                size = path.stat().st_size
                adler = Adler32(endpoint.checksum(lfn))
                version, block = endpoint.stat(lfn).version, Block(f"{DATASET}#1")
                items.append(Item(lfn, DATASET, block, lfn, "", size, size, adler, version, A))
            intent = IntentId(f"T1_A.00000000-0000-4000-8000-{no:012}")
            found.append(ManifestWritten(intent, A, 0, 0, "", "", Unit.BYTES, tuple(items), last=True))
    return found


def serve(root: Path) -> None:
    """The source: a door, and for each line of its standard input tickets for everything below `root`."""
    sys.setswitchinterval(0.001)
    endpoint, tickets = PosixEndpoint(str(root)), Tickets()
    door = Door(endpoint, tickets, HERE)
    for name, work in door.threads():
        threading.Thread(target=work, name=name, daemon=True).start()
    found = [(manifest, Ranges([(0, manifest.line.total)])) for manifest in map(Manifest, manifests_of(root))]
    print(json.dumps({"port": door.port}), flush=True)
    for _ in sys.stdin:  # a ticket ends 5 s behind its last byte: each run needs its own
        words = [tickets.make(one.requested(whole, A), whole, Destination(B), lambda _: None) for one, whole in found]
        print(json.dumps({"cpu_s": cpu_s(), "words": words}), flush=True)


def pull(source: Path, root: Path, port: int, words: list[str], connections: int) -> None:
    """The destination: everything sealed and synced; prints seconds, the processor's too."""
    sys.setswitchinterval(0.001)
    bodies = manifests_of(source)
    told: list[Message] = []
    changed = threading.Condition()

    def hear(message: Message) -> None:
        with changed:
            told.append(message)
            changed.notify_all()

    destination = DestinationPlane(B, PARTITIONS, PosixEndpoint(str(root)), hear)
    pulls = Pulls(destination, of_link=connections)
    for side in (destination, pulls):
        for name, work in side.threads():
            threading.Thread(target=work, name=name, daemon=True).start()
    before, began = cpu_s(), time.perf_counter()
    for body, word in zip(bodies, words, strict=True):
        for _ in destination.begin(Open(body.manifest, encode(body), 1, EMPTY, EMPTY, EMPTY)) or ():
            pass
        total = Manifest(body).line.total
        pulls.offered(Offer(body.manifest, A, 1, Ranges([(0, total)]), Address(HERE, port), word))

    def whole() -> bool:
        sealed = {one.manifest: one.sealed for one in told if isinstance(one, TransferProgress)}
        return all(sealed.get(body.manifest, EMPTY).covers(0, len(body.items)) for body in bodies)

    with changed:
        assert changed.wait_for(whole, 300), told[-3:]
    print(json.dumps({"s": time.perf_counter() - began, "cpu_s": cpu_s() - before}), flush=True)
    os._exit(0)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def serving(root: Path) -> Iterator[tuple[dict[str, object], Callable[[], float]]]:
    """The port and new tickets of a source, and what it used of the processor since the last time it was asked."""
    command = [sys.executable, "-m", "tests.bench.doors", "serve", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        said = json.loads(process.stdout.readline())

        def used() -> float:
            process.stdin.write("\n")
            process.stdin.flush()
            now = json.loads(process.stdout.readline())
            said["words"] = now["words"]
            since, used.last = float(now["cpu_s"]) - used.last, float(now["cpu_s"])
            return since

        used.last = 0.0
        used()
        yield said, used
        process.stdin.close()


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds, and the processor's."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def compare(
    name: str,
    source: Path,
    target: Path,
    rounds: int,
    receiver: Path | None = None,
    *,
    disk: bool = False,
    round_trip_s: float = 0.0,
) -> None:
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    count = sum(path.is_file() for path in source.rglob("*"))
    rates: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    verify: dict[str, str] = {}

    def note(who: str, seconds: float, cpu: float, part: float = 1.0) -> None:
        rates.setdefault(who, []).append(part * size / seconds / 1e6)
        cpus.setdefault(who, []).append(cpu / (part * size) * 1e9)

    with (
        serving(source) as (said, used),
        through(int(said["port"]), round_trip_s) as port,  # type: ignore[call-overload]
        peers(source, source.parent / f"peers-of-{source.name}", round_trip_s) as others,
    ):
        for _ in range(rounds):
            for connections in (1, 2, 4):
                command = [sys.executable, "-m", "tests.bench.doors", "pull", str(source), str(fresh(target))]
                used()
                command += [str(port), json.dumps(said["words"]), str(connections)]
                out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                note(f"mover, {connections} connections", out["s"], out["cpu_s"] + used())
            if receiver is not None and count == 1:
                used()
                word = said["words"][0]  # type: ignore[index]
                head = f"GET /t2g/1/line HTTP/1.1\r\nAuthorization: Bearer {word}\r\nRange: bytes=0-{size - 1}\r\n\r\n"
                seconds, cpu = timed([str(receiver), str(port), head, str(fresh(target) / "f"), str(size)])
                note("C: recv, adler32, pwrite", seconds, cpu + used())
            if not round_trip_s:
                copy = ["cp", "-r", f"{source}/.", str(fresh(target))]
                note("cp" + (" and sync" if disk else ""), *timed(["sh", "-c", " ".join(copy) + f"; sync -f {target}"]))
            for peer in others:
                note(peer.name, *peer.run(fresh(target), synced=disk), (peer.files or count) / count)
                verify[peer.name] = peer.says
    print(f"{name}: {count} files, {size / 1e9:.2f} GB, {rounds} rounds")
    best = "mover, 4 connections" if round_trip_s else "mover, 2 connections"
    for who, found in rates.items():
        ratio = statistics.median(own / other for own, other in zip(rates[best], found, strict=True))
        cpu = statistics.median(cpus[who])
        files = f"  {statistics.median(found) * 1e6 / size * count:7.0f} files/s" if count > 1 else ""
        print(
            f"  {who:<28} {statistics.median(found):7.0f} MB/s{files}  {cpu:5.2f} CPU s/GB  mover/it {ratio:5.2f}"
            f"{f'  verifies {verify[who]}' if who in verify else ''}",
            flush=True,
        )


def make(root: Path, sizes: list[int]) -> None:
    block = os.urandom(1 << 20)
    for number, size in enumerate(sizes):
        path = root / "data" / f"f{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            for at in range(0, size, len(block)):
                out.write(block[: min(len(block), size - at)])


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        return serve(Path(sys.argv[2]))
    if sys.argv[1:2] == ["pull"]:
        _, _, source, root, port, words, connections = sys.argv
        return pull(Path(source), Path(root), int(port), json.loads(words), int(connections))
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=2_000_000_000)
    parser.add_argument("--disk", default=tempfile.gettempdir())
    asked = parser.parse_args()
    missing = [
        tool for tool in ("cc", "rsync", "xrootd", "xrdcp", "rclone", "curl", "nginx") if shutil.which(tool) is None
    ]
    print(f"not here: {', '.join(missing) or 'nothing'}; zlib {zlib.ZLIB_RUNTIME_VERSION}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, tempfile.TemporaryDirectory(dir=asked.disk) as disk:
        Path(memory).chmod(0o755)  # some servers do not run as root
        receiver = Path(memory) / "receive"
        built = (
            shutil.which("cc")
            and not subprocess.run(
                ["cc", "-O2", "-x", "c", "-", "-o", str(receiver), "-lz"], input=RECEIVE, text=True, check=False
            ).returncode
        )
        one, many = Path(memory) / "one", Path(memory) / "many"
        make(one, [asked.size])
        compare("memory to memory", one, Path(memory) / "to", asked.rounds, receiver if built else None)
        shutil.rmtree(Path(memory) / "to")
        compare("memory to a disk", one, Path(disk) / "to", asked.rounds, disk=True)
        make(many, [65536] * 2000)
        compare("small files, memory", many, Path(memory) / "to", asked.rounds)
        compare("small files, to a disk", many, Path(disk) / "to", asked.rounds, disk=True)
        shutil.rmtree(one)
        make(one, [asked.size // 4])
        limit = limit_mb_s(ROUND_TRIP_S, asked.size // 4)
        print(f"a link of {ROUND_TRIP_S * 1000:.0f} ms, which itself gives a bare socket {limit:.0f} MB/s")
        compare("over that link", one, Path(memory) / "to", asked.rounds, round_trip_s=ROUND_TRIP_S)
        compare("small files over that link", many, Path(memory) / "to", asked.rounds, round_trip_s=ROUND_TRIP_S)
    return None


if __name__ == "__main__":
    main()

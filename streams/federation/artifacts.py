"""The fixed list of jars (Kafka broker and MirrorMaker 2): read, fetch into a cache, check.

Nothing here starts a process. Resolution is never left to a tool: Kafka's poms lead it to versions that
do not run together, so every jar is named with its sha256 in deploy/kafka/artifacts.txt. What fetches is imported when
something is fetched: it takes a quarter of a second, which every command that knows federations would wait.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streams.errors import NeverWorks, Temporary

if TYPE_CHECKING:
    from requests import Response

_FETCH_THREADS = 8
_TIMEOUT_S = 20
_BLOCK_BYTES = 1 << 18
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One jar: Maven coordinates and the sha256 its bytes must have."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        return f"{self.group}:{self.name}:{self.version}"

    def path(self, cache: Path) -> Path:
        """Where the jar lies under `cache`, in the layout of a Maven repository."""
        folder = cache.joinpath("maven", *self.group.split("."), self.name, self.version)
        return folder / f"{self.name}-{self.version}.jar"


def list_path() -> Path:
    """artifacts.txt: beside this file in a wheel, under deploy/kafka in a source tree."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "kafka" / "artifacts.txt", here.parents[1] / "deploy" / "kafka" / "artifacts.txt"):
        if candidate.is_file():
            return candidate
    raise NeverWorks("the list of Kafka jars is missing from this installation", "artifacts.txt", "install it again")


def read_list(path: Path | None = None) -> tuple[Artifact, ...]:
    """The artifacts of `path` (default: the installed list), in class path order."""
    path = path or list_path()
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        parts = words[0].split(":")
        if len(words) != 2 or len(parts) != 3 or len(words[1]) != 64:
            raise NeverWorks("not a line of coordinates and sha256", f"{path}:{number}")
        found.append(Artifact(parts[0], parts[1], parts[2], words[1]))
    return tuple(found)


def ensure(
    artifacts: tuple[Artifact, ...],
    cache: Path,
    on_step: OnStep | None = None,
    remote_repos: dict[str, str] | None = None,
) -> list[Path]:
    """Every jar in the cache with the right sum, fetching what is missing; the class path in order.

    A jar that is complete stays when another fails, so a second call goes on where the first ended.
    Raises Temporary (download failed, disk full) or NeverWorks (a sum differs).
    """
    missing = [a for a in artifacts if not a.path(cache).is_file()]
    if missing:
        if on_step:
            on_step(f"fetching {len(missing)} of {len(artifacts)} Kafka jars")
        repositories = _Repositories(remote_repos, cache)
        with ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="jar") as pool:
            list(pool.map(repositories.fetch, missing))  # where one fails, those that wait are not begun
    verify(artifacts, cache)
    return [a.path(cache) for a in artifacts]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(artifacts: tuple[Artifact, ...], cache: Path) -> None:
    """Raise NeverWorks naming the first jar of the cache whose bytes are not the listed ones."""
    for artifact in artifacts:
        path = artifact.path(cache)
        try:
            found = sha256_of(path)
        except FileNotFoundError:
            raise Temporary(
                f"{artifact.coordinates} is not in the cache", str(path), "run `transfer2go up` again"
            ) from None
        if found != artifact.sha256:
            raise NeverWorks(
                f"{artifact.coordinates} has another sha256 than listed: "
                f"{found[:16]}… instead of {artifact.sha256[:16]}…",
                str(path),
                "remove that file and run `transfer2go up` again to fetch it afresh",
            )


class _Repositories:
    """Where jars are fetched from, on kept connections of each thread."""

    def __init__(self, repos: dict[str, str] | None, cache: Path) -> None:
        from jgo.maven import MavenContext

        self.cache = cache
        self._urls = list(MavenContext(remote_repos=repos).remote_repos.values())
        self._local = threading.local()

    def fetch(self, artifact: Artifact) -> None:
        """Raises Temporary where it cannot be had now, NeverWorks where it is another."""
        import requests

        try:
            self._fetch(artifact)
        except requests.exceptions.SSLError as error:
            raise Temporary(
                f"cannot fetch {artifact.coordinates}: the repository's certificate is not trusted here",
                next="behind a proxy that opens TLS, name its certificates in REQUESTS_CA_BUNDLE",
            ) from error
        except requests.RequestException as error:
            what = f"cannot fetch {artifact.coordinates}: {type(error).__name__}"
            raise Temporary(what, next="check the network and try again") from error
        except OSError as error:
            raise disk_error(error, str(self.cache / "maven")) from error

    def _fetch(self, artifact: Artifact) -> None:
        if not hasattr(self._local, "session"):
            from requests import Session

            self._local.session = Session()
        target, answers = artifact.path(self.cache), []
        for url in self._urls:
            place = f"{url}/{target.relative_to(self.cache / 'maven').as_posix()}"
            with self._local.session.get(place, stream=True, timeout=_TIMEOUT_S) as response:
                if response.status_code == 200:
                    return _save(response, target, artifact)
                answers.append(str(response.status_code))
        what = f"cannot fetch {artifact.coordinates}: the repository answered {', '.join(answers)}"
        raise Temporary(what, next="check the network and try again")


def _save(response: Response, target: Path, artifact: Artifact) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}.part")
    seen = hashlib.sha256()
    try:
        with part.open("wb") as out:
            for block in response.iter_content(_BLOCK_BYTES):
                seen.update(block)
                out.write(block)
        if seen.hexdigest() != artifact.sha256:
            raise NeverWorks(
                f"{artifact.coordinates} was fetched with another sha256 than listed: "
                f"{seen.hexdigest()[:16]}… instead of {artifact.sha256[:16]}…",
                next="the repository or something on the way changes it: do not use it",
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def disk_error(error: OSError, where: str) -> Temporary:
    """`error` as one line: the disk is full, or what else the system said."""
    if error.errno in _FULL:
        return Temporary("the disk is full", where, "free some space and try again")
    return Temporary(f"cannot write: {error.strerror or error}", error.filename or where)

"""Jars over a real HTTP server: fetched, resumed, and refused in one line when something is wrong."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streams.errors import NeverWorks, Temporary
from streams.federation import artifacts
from streams.federation.artifacts import Artifact

JARS = {f"jar-{n}": bytes([n]) * (1000 + n) for n in range(6)}
LISTED = tuple(Artifact("org.example", name, "1.0", hashlib.sha256(body).hexdigest()) for name, body in JARS.items())
VICTIM = LISTED[3]


class Repository(ThreadingHTTPServer):
    """Serves JARS in a Maven repository's layout; `broken` names the jar answered by `how`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []
        self.how = ""

    @property
    def repos(self) -> dict[str, str]:
        return {"here": f"http://127.0.0.1:{self.server_address[1]}"}


class Answer(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        name = self.path.split("/")[-3]
        self.server.asked.append(name)
        body, length = JARS[name], len(JARS[name])
        how = self.server.how if name == VICTIM.name else ""
        if how == "absent":
            self.send_error(404)
            return
        if how == "changed":
            body = b"x" * length
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body[: length // 2] if how == "cut" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository() -> Iterator[Repository]:
    server = Repository()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def one_line(error: BaseException) -> str:
    line = str(error)
    assert "\n" not in line
    return line


def test_everything_is_fetched_once_and_in_order(repository: Repository, tmp_path: Path) -> None:
    steps: list[str] = []
    paths = artifacts.ensure(LISTED, tmp_path, steps.append, repository.repos)
    assert [path.read_bytes() for path in paths] == list(JARS.values())
    assert sorted(repository.asked) == sorted(JARS)
    assert steps == ["fetching 6 of 6 Kafka jars"]
    assert artifacts.ensure(LISTED, tmp_path, steps.append, repository.repos) == paths
    assert len(repository.asked) == 6, "nothing is fetched twice"


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("absent", Temporary, "answered 404"),
        ("cut", Temporary, "cannot fetch"),
        ("changed", NeverWorks, "another sha256 than listed"),
    ],
)
def test_a_bad_answer_names_the_artifact_and_leaves_nothing_behind(
    repository: Repository, tmp_path: Path, how: str, kind: type[Exception], words: str
) -> None:
    repository.how = how
    with pytest.raises(kind) as caught:
        artifacts.ensure(LISTED, tmp_path, None, repository.repos)
    line = one_line(caught.value)
    assert VICTIM.coordinates in line
    assert words in line
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {a.path(tmp_path).name for a in LISTED if a is not VICTIM}, "no half file, nothing under the name"


def test_a_second_try_goes_on_where_the_first_ended(repository: Repository, tmp_path: Path) -> None:
    repository.how = "cut"
    with pytest.raises(Temporary):
        artifacts.ensure(LISTED, tmp_path, None, repository.repos)
    had = {a.name for a in LISTED if a.path(tmp_path).exists()}
    assert had, "those before it are there"
    repository.how, repository.asked = "", []
    artifacts.ensure(LISTED, tmp_path, None, repository.repos)
    assert set(repository.asked) == set(JARS) - had


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        repos = {"here": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        with pytest.raises(Temporary) as caught:
            artifacts.ensure(LISTED, tmp_path, None, repos)
    assert "check the network" in one_line(caught.value)


def test_a_tampered_jar_of_the_cache_is_named_and_never_used(repository: Repository, tmp_path: Path) -> None:
    artifacts.ensure(LISTED, tmp_path, None, repository.repos)
    jar = VICTIM.path(tmp_path)
    content = bytearray(jar.read_bytes())
    content[10] ^= 1
    jar.write_bytes(content)
    with pytest.raises(NeverWorks) as caught:
        artifacts.ensure(LISTED, tmp_path, None, repository.repos)
    line = one_line(caught.value)
    assert VICTIM.coordinates in line
    assert str(jar) in line
    assert "remove that file" in line
    jar.unlink()
    artifacts.ensure(LISTED, tmp_path, None, repository.repos)


def test_a_full_disk_is_said_so(repository: Repository, tmp_path: Path) -> None:
    """The system's own limit on a file's size stands for the full disk: both end a write the same way."""
    script = f"""
        import resource
        from pathlib import Path
        from streams.federation import artifacts
        from streams.errors import Temporary
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        listed = (artifacts.Artifact("org.example", "jar-0", "1.0", {LISTED[0].sha256!r}),)
        try:
            artifacts.ensure(listed, Path({str(tmp_path)!r}), None, {repository.repos!r})
        except Temporary as error:
            print(error)
    """
    said = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.startswith("the disk is full")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "maven").write_text("a file where a directory belongs")
    with pytest.raises(Temporary) as caught:
        artifacts.ensure(LISTED, tmp_path, None, repository.repos)
    assert "cannot write" in one_line(caught.value)


def test_the_installed_list_is_one_kafka_and_well_formed() -> None:
    listed = artifacts.read_list()
    kafka = {a.version for a in listed if a.group == "org.apache.kafka"}
    assert kafka == {"4.3.1"}
    assert len({(a.group, a.name) for a in listed}) == len(listed) == 93
    assert {"kafka_2.13", "connect-mirror", "log4j-core"} <= {a.name for a in listed}


@pytest.mark.parametrize("line", ["org.example:jar", "org.example:jar:1.0", "org.example:jar:1.0 abc", "a:b:c " * 2])
def test_a_bad_line_of_the_list_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "artifacts.txt"
    path.write_text(f"# comment\n\n{line}\n")
    with pytest.raises(NeverWorks) as caught:
        artifacts.read_list(path)
    assert f"{path}:3" in one_line(caught.value)

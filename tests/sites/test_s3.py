"""Keys of an S3-compatible store at one site become files at the other: registered by glob, moved as files are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from streams.auditing.replaying import audit
from streams.cli import root
from streams.core import records as m
from streams.core import topics
from streams.core.channel import DOOR, URLS
from streams.errors import PartlyDone
from streams.registration.registering import register
from tests.sites.rig import A, B, Rig, Spot, noise
from tests.storage.s3_server import Server

pytestmark = [pytest.mark.sites, pytest.mark.changes_federation, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(federation: Rig) -> Iterator[Server]:
    """The store `cern` of site A, whose worker is started again to know it, and in the end to forget it."""
    path, credentials = federation.state / A / "site.toml", federation.state / A / "s3-credentials"
    before = path.read_text()
    with Server() as made:
        store = made.store()
        keys = {"aws_access_key_id": store.access_key_id, "aws_secret_access_key": store.secret_access_key}
        credentials.write_text("[default]\n" + "".join(f"{name} = {text}\n" for name, text in keys.items()))
        table = {"url": made.url, "bucket": store.bucket, "prefix": "run1/", "credentials_file": credentials}
        words = "".join(f'{name} = "{text}"\n' for name, text in table.items())
        path.write_text(f"{before}\n[stores.cern]\ndirect = true\n{words}")
        federation.start_again(A)
        yield made
        path.write_text(before)
        federation.start_again(A)


def _lfns(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"/store/s3/cern/{name}": content for name, content in contents.items()}


def _put(server: Server, contents: dict[str, bytes]) -> None:
    server.put({f"run1/{name}": content for name, content in contents.items()})


def test_keys_by_glob_arrive_whole(rig: Rig, spot: Spot, server: Server) -> None:
    """By the command: what the glob means and nothing else; an odd name is one line. Beside them a file of the disk."""
    contents = {f"{spot.name}/{n}.dat": noise(n * 1000, (spot, n)) for n in range(200)}
    contents[f"{spot.name}/deep/big.dat"] = noise(30 << 20, spot)
    _put(server, contents)
    _put(server, {f"{spot.name}/other.txt": b"no", f"{spot.name}/a b.dat": b"odd"})
    done = _command(rig, "file", "register", f"s3://cern/{spot.name}/*.dat", "--block", spot.block())
    assert done.exit_code == PartlyDone.exit_code, done.output
    assert "a b.dat: this key is no LFN" in done.stderr
    assert "201 files" in done.stdout
    rig.register({spot.lfn("disk.dat"): noise(5000, "disk")}, spot.block())
    handle = rig.publish([spot.block()])
    rig.wait_done(handle)
    rig.assert_arrived(_lfns(contents) | {spot.lfn("disk.dat"): noise(5000, "disk")})
    verified = _command(rig, "file", "verify", spot.block())
    assert verified.exit_code == 0, verified.output
    assert not (rig.storage(A) / "store/s3").exists()
    rig.audit()


def test_a_key_that_changed_and_one_that_went_say_so(rig: Rig, spot: Spot, server: Server) -> None:
    contents = {f"{spot.name}/{name}": noise(300_000, (spot, name)) for name in ("good", "changed", "gone")}
    _put(server, contents)
    done = register(rig.settings(A), rig.publisher(A), [f"s3://cern/{spot.name}/"], spot.block())
    assert (done.files, done.faults) == (3, [])
    _put(server, {f"{spot.name}/changed": noise(300_000, "other")})
    server.delete(f"run1/{spot.name}/gone")
    outcome = rig.wait(rig.publish([spot.block()]))
    assert outcome.exit_code == PartlyDone.exit_code
    why = {one.lfn.rpartition("/")[2]: one.reason for one in outcome.unfinished}
    assert "has changed since it was registered" in why["changed"].text
    assert (why["changed"].failure_class, why["changed"].scope) == (m.FailureClass.DATA_BAD, m.Scope.SOURCE)
    assert "no such key in the store cern" in why["gone"].text
    assert why["gone"].failure_class is m.FailureClass.PERMANENT
    rig.assert_arrived(_lfns({f"{spot.name}/good": contents[f"{spot.name}/good"]}))
    _put(server, contents)
    rig.audit()


def test_a_store_that_is_away_in_the_middle_is_waited_for(rig: Rig, spot: Spot, server: Server) -> None:
    """Meanwhile files from disk pass."""
    contents = {f"{spot.name}/{n}.dat": noise(20 << 20, (spot, n)) for n in range(4)}
    _put(server, contents)
    register(rig.settings(A), rig.publisher(A), [f"s3://cern/{spot.name}/"], spot.block())
    with rig.ear(B, topics.CHUNK_EVENTS) as ear:
        handle = rig.publish([spot.block()])
        ear.until(
            lambda w: isinstance(w, m.TransferProgress) and w.manifest.intent == handle.id and bool(w.verified),
            "some of it is there",
        )
        server.go_away()
        disk = {spot.lfn("disk.dat"): noise(50_000, spot)}
        rig.register(disk, spot.block("disk"))
        rig.wait_done(rig.publish([spot.block("disk")]))
        assert not handle.snapshot().ended
        server.come_back()
        rig.wait_done(handle)
    rig.assert_arrived(_lfns(contents) | disk)
    rig.audit()


def test_keys_cross_from_their_store_where_an_intent_insists_on_doors(rig: Rig, spot: Spot, server: Server) -> None:
    contents = {f"{spot.name}/{n}": noise(size, (spot, n)) for n, size in enumerate((30_000_000, 5_000, 1))}
    _put(server, contents)
    register(rig.settings(A), rig.publisher(A), [f"s3://cern/{spot.name}/"], spot.block())
    before = sum(rig.ends(A, topics.chunks_to(B)).values())
    handle = rig.publish([spot.block()], plane=DOOR)
    rig.wait_done(handle)
    rig.assert_arrived(_lfns(contents))
    assert sum(rig.ends(A, topics.chunks_to(B)).values()) - before <= 4, "offers, no payload"
    said = rig.facts(A, topics.CHUNK_EVENTS)
    served = [one for one in said if isinstance(one, m.ChunksServed) and one.manifest.intent == handle.id]
    assert {(one.plane, one.bytes) for one in served} == {(URLS, 0)}
    rig.audit()


def test_a_key_that_was_replaced_says_so_by_its_store(rig: Rig, spot: Spot, server: Server) -> None:
    contents = {f"{spot.name}/{name}": noise(300_000, (spot, name)) for name in ("good", "changed")}
    _put(server, contents)
    register(rig.settings(A), rig.publisher(A), [f"s3://cern/{spot.name}/"], spot.block())
    _put(server, {f"{spot.name}/changed": noise(300_000, "other")})
    (failed,) = rig.wait(rig.publish([spot.block()], plane=DOOR)).unfinished
    assert failed.lfn.endswith("/changed")
    assert (failed.reason.failure_class, failed.reason.scope) == (m.FailureClass.DATA_BAD, m.Scope.SOURCE)
    assert "another ETag" in failed.reason.text
    rig.assert_arrived(_lfns({f"{spot.name}/good": contents[f"{spot.name}/good"]}))
    _put(server, contents)
    rig.audit()


def test_a_key_that_is_in_the_destinations_store_already(rig: Rig, spot: Spot, server: Server) -> None:
    """It need not be registered there: A looks into its store, finds just these bytes, and says that it holds them."""
    contents = {f"{spot.name}/{n}.dat": noise(10_000, (spot, n)) for n in range(3)}
    rig.register(_lfns(contents), spot.block(), at=B)
    _put(server, contents)
    rig.wait_done(rig.publish([spot.block()], [A], home=B))
    assert not (rig.storage(A) / "store/s3").exists()
    rig.audit()
    report = audit(rig.settings(A), storage=True)
    assert report.exit_code == 0, report


def test_what_a_store_cannot_be_asked_for(rig: Rig, spot: Spot, server: Server) -> None:
    """Objects are read from files on disk; and nothing is ever written into a store."""
    _put(server, {f"{spot.name}.zip": b"PK"})
    register(rig.settings(A), rig.publisher(A), [f"s3://cern/{spot.name}.zip"], spot.block())
    (failed,) = rig.wait(rig.publish([spot.block()], objects="*")).unfinished
    assert "a key of the store cern" in failed.reason.text
    assert failed.reason.failure_class is m.FailureClass.PERMANENT
    back = {f"/store/s3/cern/{spot.name}/back.dat": b"from B"}
    rig.register(back, spot.block("back"), at=B)
    (refused,) = rig.wait(rig.publish([spot.block("back")], [A], home=B)).unfinished
    assert "only read here" in refused.reason.text
    assert (refused.reason.failure_class, refused.reason.scope) == (m.FailureClass.PERMANENT, m.Scope.DESTINATION)
    rig.audit()


def _command(rig: Rig, *words: str) -> Result:
    result = CliRunner().invoke(root, ["--state", str(rig.state), "--site", A, *words])
    assert "Traceback" not in result.output
    return result

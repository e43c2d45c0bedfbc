"""`audit tables` over clusters: workers at rest, what was changed by hand in their tables, and what cannot be read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from streams.auditing import tables as auditing
from streams.auditing.catalogue_fold import CatalogueFold
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, worker_group
from streams.auditing.table_fold import TableFold, place_of
from streams.cli.audit import audit as command
from streams.core import topics
from streams.core.names import Site
from streams.core.topics import LogPartition
from streams.errors import NotAllowed
from streams.kafka.reader import LogReader, Record
from streams.settings import ROW_FORMAT, Settings
from streams.views import marks, scratch
from streams.views import rows as views
from streams.views.view import FORMAT
from streams.worker import rows
from tests.audit.conftest import Stage
from tests.audit.history import PARTITIONS, A, B, Federation, healthy
from tests.storage.disks import tmpfs

Build = Callable[..., Stage]
KEPT = {"intents": 1, "transfers": 2, "waiting": 0, "manifests": 0}
"""Rows of B's tables of a healthy federation at rest."""


@dataclass
class Workers:
    """Two sites at rest: their journals, changelogs, and a worker's directory each."""

    at: Stage
    world: Federation

    @property
    def settings(self) -> Settings:
        return self.at.settings

    def changelog(self, site: Site, table: str) -> str:
        return f"{worker_group(self.settings, site)}-{table}-changelog"

    def directory(self, site: Site) -> Path:
        return self.settings.state / site / "worker-0"

    def database(self, site: Site, table: str, partition: int) -> Path:
        generation = self.settings.registry.generation
        return self.directory(site) / "faust" / f"v{generation}" / "tables" / f"{table}-{partition}.db"

    def put(self, site: Site, table: str, partition: int, key: bytes, row: bytes | None) -> None:
        producer = Producer({"bootstrap.servers": self.at.clusters[site].bootstrap, "linger.ms": 0})
        producer.produce(self.changelog(site, table), key=key, value=row, partition=partition)
        assert producer.flush(10) == 0

    def row(self, site: Site, table: str) -> tuple[int, bytes, bytes]:
        """Partition, key and bytes of the first row that is no entry of an open one."""
        for raw, row in self.folded(site)[table]:
            partition, key = place_of(raw)
            if not key.startswith(rows.OPEN):
                return partition, key.encode(), row
        raise AssertionError(f"{site} has no row of {table}")

    def records(self, site: Site, *bases: str) -> Iterator[Record]:
        for (where, topic, partition), log in sorted(self.world.logs.items()):
            if where == site and topics.split(topic)[1] in bases:
                for offset, (_, rec) in enumerate(log):  # a mock gives offsets without holes
                    yield Record(topic, partition, offset, rec.at_ms, rec.key, rec.value, list(rec.headers))

    def folded(self, site: Site) -> dict[str, list[tuple[bytes, bytes]]]:
        peers = self.settings.registry.peers_of(site)
        with scratch.database() as db:
            fold = TableFold(db, site, PARTITIONS)
            for record in self.records(site, *topics.OF_INTENTS, *topics.of_transfers(site, peers)):
                if record.topic not in [topics.remote(peer, topics.requests_to(site)) for peer in peers]:
                    fold.hear(record, site)
            return {name: list(fold.table(name)) for name in rows.NAMES}

    def rest(self) -> None:
        for site in self.at.clusters:
            for table, found in self.folded(site).items():
                last: dict[int, int] = {}
                self.put(site, table, 0, b"gone", b"before")
                self.put(site, table, 0, b"gone", None)
                last[0] = 1
                for raw, row in found:
                    partition, key = place_of(raw)
                    self.put(site, table, partition, key.encode(), row)
                    last[partition] = last.get(partition, -1) + 1
                for partition in range(PARTITIONS):
                    path = self.database(site, table, partition)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    db = views.open_primary(str(path))
                    for raw, row in found:
                        if place_of(raw)[0] == partition:
                            db.put(place_of(raw)[1].encode(), row)
                    if partition in last:
                        db.put(b"__faust\0offset__", str(last[partition]).encode())
                    db.close()
            self._keep_view(site)

    def _keep_view(self, site: Site) -> None:
        db = self.view(site)
        fold = CatalogueFold(db)
        for record in self.records(site, topics.REPLICAS):
            fold.hear(record, site)
            place = views.offset_key(record.topic, record.partition)
            fold._changes.extra[place] = marks.pack(record.offset + 1, "mark")
        fold.write()
        db.delete_range(b"~", b"\x7f")
        db.put(views.STAMP, f"{FORMAT} {site} cluster 1".encode())
        db.close()

    def view(self, site: Site) -> Any:
        return views.open_primary(str(self.directory(site) / "view"))

    def key_at(self, site: Site, topic: str, partition: int, offset: int) -> bytes | None:
        return self.world.logs[site, topic, partition][offset][1].key

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(command, ["tables", *words], obj=self.settings)


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> dict[LogPartition, int]:
    """What workers have committed where it is not all that stands there: offsets by place."""
    less: dict[LogPartition, int] = {}

    def offsets(settings: Settings, site: Site, group: str) -> dict[LogPartition, int]:
        assert group == worker_group(settings, site)
        with LogReader(settings, site) as reader:
            peers = settings.registry.peers_of(site)
            read = [*topics.with_copies(topics.OF_INTENTS, peers), *topics.of_transfers(site, peers)]
            return {**reader.end_offsets(reader.partitions_of(read)), **less}

    monkeypatch.setattr(auditing, "committed_offsets", offsets)  # the mock tells of no group's offsets
    return less


@pytest.fixture
def workers(stage: Build, committed: dict[LogPartition, int]) -> Workers:
    made = Workers(stage(A, B), healthy(A, B))
    made.at.play(made.world)
    made.rest()
    return made


def told(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_workers_at_rest_keep_what_their_journals_give(workers: Workers) -> None:
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_CLEAN, seen.output
    found = told(seen)
    assert (found["different"], found["differences"], found["unseen"], found["remarks"]) == (0, [], [], [])
    directory = str(workers.directory(B))
    for of in (auditing.CHANGELOG, directory):
        compared = {t["table"]: t["compared"] for t in found["tables"] if (t["site"], t["of"]) == (B, of)}
        assert {table: compared[table] for table in KEPT} == KEPT
    totals = {
        t["table"]: t["compared"] for t in found["tables"] if (t["site"], t["of"]) == (A, str(workers.directory(A)))
    }
    assert all(totals[table] > 0 for table in ("replicas", "listings", "block totals", "dataset totals"))
    assert workers.run().stdout.splitlines()[-1].startswith("the same: ")
    alone = told(workers.run("--json", "--site", B))
    assert {t["site"] for t in alone["tables"]} == {B}


@pytest.mark.parametrize("table", ["intents", "transfers"])
def test_a_row_of_a_changelog_changed_by_hand(workers: Workers, table: str) -> None:
    partition, key, row = workers.row(B, table)
    changed = json.loads(row) | {"state": "new"}
    workers.put(B, table, partition, key, json.dumps(changed, separators=(",", ":")).encode())
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_BROKEN
    (one,) = told(seen)["differences"]
    assert (one["site"], one["table"], one["partition"], one["key"]) == (B, table, partition, key.decode())
    was = json.loads(row)["state"]
    assert (one["of"], one["fault"]) == ("changelog", "is not what its journals give")
    assert one["fields"] == [f'state "new" instead of "{was}"']
    assert one["put"]["topic"] == workers.changelog(B, table)
    heard = one["heard"]
    assert workers.key_at(B, heard["topic"], heard["partition"], heard["offset"]) == key
    shown = workers.run().stdout
    assert (
        f"{B} {table}[{partition}] {key.decode()}: the row of changelog is not what its journals give, in state"
        in shown
    )
    # Topics are read side by side, so that another run may have heard another of its records last.
    (place,) = re.findall(rf"last heard: {B} (\S+)\[(\d+)\]@(\d+)$", shown, re.MULTILINE)
    assert workers.key_at(B, place[0], int(place[1]), int(place[2])) == key
    assert f"last put: {B} {workers.changelog(B, table)}[{partition}]@" in shown
    assert shown.splitlines()[-1].startswith("BROKEN: 1 rows differ")


def test_a_row_removed_and_one_put_by_hand(workers: Workers) -> None:
    partition, key, row = workers.row(A, "intents")
    workers.put(A, "intents", partition, key, None)
    workers.put(A, "transfers", 2, b"nonsense \xff", row)
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_BROKEN
    removed, strange = told(seen)["differences"]
    assert (removed["key"], removed["fault"]) == (key.decode(), "is missing")
    assert removed["put"]["topic"] == workers.changelog(A, "intents"), "where it was removed"
    assert (strange["table"], strange["key"]) == ("transfers", r"nonsense \xff")
    assert strange["fault"] == "is in no fold of its journals"


def test_a_row_changed_in_a_workers_directory(workers: Workers) -> None:
    partition, key, row = workers.row(B, "transfers")
    db = views.open_primary(str(workers.database(B, "transfers", partition)))
    db.put(key, row.replace(b"closed", b"active", 1))
    db.close()
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_BROKEN
    (one,) = told(seen)["differences"]
    assert (one["of"], one["key"]) == (str(workers.directory(B)), key.decode())
    assert one["put"]["topic"] == workers.changelog(B, "transfers")


def test_a_directory_behind_its_changelog_is_not_compared(workers: Workers) -> None:
    """A worker that had the partition before leaves it as it was then."""
    partition, key, _ = workers.row(B, "transfers")
    db = views.open_primary(str(workers.database(B, "transfers", partition)))
    db.delete(key)
    db.delete(b"__faust\0offset__")
    db.close()
    workers.put(B, "transfers", partition, b"later", b"")
    workers.put(B, "transfers", partition, b"later", None)
    seen = workers.run()
    assert seen.exit_code == EXIT_CLEAN, seen.output
    assert "1 partitions of tables that are behind their changelogs" in seen.output


@pytest.mark.parametrize(
    ("table", "prefix"),
    [("replicas", views.FILE), ("listings", views.MEMBER), ("block totals", views.BLOCK), ("dataset totals", b"d")],
)
def test_a_catalogue_and_its_totals(workers: Workers, table: str, prefix: bytes) -> None:
    db = workers.view(A)
    key, row = next(views.scan(db, prefix))
    db.put(key, row + b"1")
    db.close()
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_BROKEN
    (one,) = told(seen)["differences"]
    assert (one["site"], one["table"], one["of"]) == (A, table, str(workers.directory(A)))
    assert one["key"] == key[1:].decode().replace("\0", " ")
    assert topics.split(one["heard"]["topic"])[1] == topics.REPLICAS
    assert one["put"]["offset"] >= one["heard"]["offset"]

    db = workers.view(A)
    db.delete(key)
    db.close()
    (gone,) = told(workers.run("--json"))["differences"]
    assert (gone["table"], gone["fault"]) == (table, "is missing")


def test_a_catalogue_that_lags_is_compared_as_far_as_it_is(workers: Workers) -> None:
    """It says itself how far it has read."""
    newer = Federation(A, B)
    newer.logs = {
        key: list(log) for key, log in workers.world.logs.items() if topics.split(key[1])[1] == topics.REPLICAS
    }
    workers.at.play(newer)  # everything once more
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_CLEAN, seen.output


def test_what_the_workers_have_not_heard_is_not_compared(workers: Workers, committed: dict[LogPartition, int]) -> None:
    place = next(
        (t, p) for (site, t, p), log in sorted(workers.world.logs.items()) if (site, t) == (B, topics.TRANSFERS) and log
    )
    committed[place] = 0
    partition, key, _ = workers.row(B, "transfers")
    assert partition == place[1]
    workers.put(B, "transfers", partition, key, b"{}")
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_INCOMPLETE
    found = told(seen)
    assert found["differences"] == []
    assert sum(t["moving"] for t in found["tables"]) > 0
    (line,) = found["unseen"]
    assert line.startswith(f"the workers of {B} have not heard {place[0]}[{place[1]}] to the end")
    assert workers.run().stdout.splitlines()[-1].startswith("INCOMPLETE")


# what cannot be read


def one_line(result: Result, site: Site) -> str:
    assert result.exit_code == EXIT_INCOMPLETE, result.output
    (line,) = [line for line in result.stderr.splitlines() if "could not be read" in line]
    assert line.startswith(f"{site} could not be read: ")
    return line


def test_a_site_without_a_worker(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "committed_offsets", lambda settings, site, group: {})
    seen = workers.run("--site", B, "--json")
    assert seen.exit_code == EXIT_INCOMPLETE
    (line,) = told(seen)["unseen"]
    assert line.startswith(f"no worker of {B} has committed anything as transfer2go-{B}-v")
    assert told(seen)["differences"] == []


def test_a_site_at_which_nothing_was_ever_written(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Workers(stage(A, B), Federation(A, B))
    monkeypatch.setattr(auditing, "committed_offsets", lambda settings, site, group: {})
    made.rest()
    seen = made.run()
    assert seen.exit_code == EXIT_CLEAN, seen.output
    assert seen.stdout.splitlines()[-1] == "the same: 0 rows, folded from 0 records"


def test_a_site_where_none_has_ever_run(stage: Build, committed: dict[LogPartition, int]) -> None:
    at = stage(A, B)
    at.play(healthy(A, B))
    line = one_line(CliRunner().invoke(command, ["tables", "--site", A], obj=at.settings), A)
    assert "has a worker of this release ever run there?" in line


def test_tables_of_another_row_format(workers: Workers) -> None:
    registry = workers.settings.registry
    later = replace(workers.settings, registry=replace(registry, table_version=registry.table_version + 10_000))
    line = one_line(CliRunner().invoke(command, ["tables", "--site", A], obj=later), A)
    now = f"row format {ROW_FORMAT}, table_version 1"
    assert f"the workers of {A} keep tables of {now}, and this is row format {ROW_FORMAT + 1}" in line
    assert "audit with their release" in line


def test_a_changelog_that_may_not_be_read(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    read = auditing.replay

    def refused(settings: Settings, site: Site, names: Any) -> Iterator[Record]:
        names = list(names)
        if site == B and names[0].endswith("-changelog"):
            raise NotAllowed(f"reading {names[0]} failed: not authorized", f"cluster of {site}")
        return read(settings, site, names)

    monkeypatch.setattr(auditing, "replay", refused)
    seen = workers.run("--json")
    assert f"reading {workers.changelog(B, 'intents')} failed" in one_line(seen, B)
    assert {t["site"] for t in told(seen)["tables"]} == {A}, "the other site is compared"


def test_a_directory_of_another_format_or_damaged(workers: Workers) -> None:
    workers.database(A, "intents", 0).parent.parent.rename(workers.directory(A) / "faust" / "v50001")
    db = workers.view(A)
    db.put(views.STAMP, b"1 x y 1")
    db.close()
    for file in workers.database(B, "intents", 0).glob("CURRENT"):
        file.write_bytes(b"nonsense")
    seen = workers.run("--json")
    assert seen.exit_code == EXIT_INCOMPLETE
    lines = told(seen)["unseen"]
    then, now = (f"row format {number}" for number in (6, ROW_FORMAT))
    assert any(f"has tables of {then}, table_version 1, and this is {now}" in line for line in lines)
    assert any("has a view of another format" in line for line in lines)
    assert any(line.startswith("a worker's directory cannot be read") for line in lines)
    assert all("\n" not in line for line in lines)


def test_the_directory_for_temporary_files_is_full(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tmpfs(tmp_path / "small", "size=64k") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        seen = workers.run()
        assert list(disk.iterdir()) == []
    assert "TMPDIR" in str(seen.exception)
    assert "\n" not in str(seen.exception)

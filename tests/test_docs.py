"""The documents held to the code: what they name exists, the pictures are the code's, the README is short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

import streams
from streams.core import intent as intents
from streams.core import transfer as transfers
from tests import state_pictures

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README_LINES_MAX = 150
RULES_MIN = 20
RULES = "Where is it decided that …"

FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
IN_THE_TREE = re.compile(r"(?:agents|streams|schemas|tests|deploy|docs|\.ci)/\S*|\S+\.(?:py|md)(?:::\S+)?")
"""What between backticks looks like a file of this repository, and perhaps a name in it."""
A_MODULE = re.compile(r"(?<![\w*{}/.-])[\w/]+\.py\b")


def faults_of(text: str) -> Iterator[str]:
    """Files and names that a document speaks of and the tree does not have."""
    prose = FENCED.sub("", text)
    yield from (
        f"{line!r}: code that goes over a line is not looked at" for line in prose.splitlines() if line.count("`") % 2
    )
    for token in CODE.findall(prose):
        if IN_THE_TREE.fullmatch(token):
            path, _, name = token.partition("::")
            if not list(ROOT.glob(path)):
                yield f"`{token}`: no such file"
            elif name and name not in names_in(ROOT / path):
                yield f"`{token}`: {path} defines no {name}"


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a module defines: `name`, `Class`, and `Class.name` of methods and fields."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        for name in defined_by(node):
            found.add(name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{name}.{inner}" for one in node.body for inner in defined_by(one)}
    return frozenset(found)


def defined_by(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name() as target):
            return [target.id]
    return []


def anchors_of(text: str) -> set[str]:
    """The anchors of a document's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_under(heading: str, text: str) -> list[list[str]]:
    """Rows of the first table under a heading, without its head."""
    rest = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in rest.splitlines() if line.startswith("|")]
    return rows[2:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    assert list(faults_of(document.read_text())) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(FENCED.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name}: the link {link} leads nowhere"
        assert not anchor or anchor in anchors_of(target.read_text()), f"{document.name}: {link}: no such heading"


def test_the_readme_is_short() -> None:
    lines = len((ROOT / "README.md").read_text().splitlines())
    assert lines <= README_LINES_MAX, f"README.md has {lines} lines; what only some readers need belongs into docs/"


def test_the_states_are_drawn_as_the_code_has_them() -> None:
    _, written, _ = state_pictures.split(state_pictures.DESIGN.read_text())
    anew = "write them anew with `python -m tests.state_pictures`, and see that the words below still hold"
    assert written == state_pictures.draw(), f"docs/DESIGN.md shows other states than the folds have: {anew}"


def test_the_picture_is_drawn_from_every_fact_and_has_every_state() -> None:
    machines = (
        (intents.IntentMessage, intents.State, state_pictures.intent_histories()),
        (transfers.TransferMessage, transfers.State, state_pictures.transfer_histories()),
    )
    picture = state_pictures.draw()
    for facts, states, histories in machines:
        assert {type(fact) for history in histories for fact in history} == set(get_args(facts))
        assert [state for state in states if f"--> {state}" not in picture] == []


def test_every_state_has_a_paragraph() -> None:
    text = state_pictures.DESIGN.read_text()
    of_intents, _, of_transfers = text.partition("### Of an intent\n")[2].partition("### Of a transfer\n")
    for states, words in ((intents.State, of_intents), (transfers.State, of_transfers)):
        assert [state for state in states if f"**{state}.**" not in words] == []


def test_a_stranger_finds_the_file_for_a_rule() -> None:
    rows = table_under(RULES, state_pictures.DESIGN.read_text())
    assert len(rows) >= RULES_MIN
    for rule, where in rows:
        paths = [token.partition("::")[0] for token in CODE.findall(where) if IN_THE_TREE.fullmatch(token)]
        assert paths, f"{rule.strip()}: which file?"
        assert all((ROOT / path).is_file() for path in paths), f"{rule.strip()}: {where.strip()}"


def test_every_package_says_what_lives_there() -> None:
    for top in ("streams", "agents"):
        for directory in sorted({path.parent for path in (ROOT / top).rglob("*.py")}):
            package = directory / "__init__.py"
            assert package.is_file(), f"{directory} holds modules and is no package"
            assert ast.get_docstring(ast.parse(package.read_text())), f"{package} has no docstring"


def test_what_the_package_offers_can_be_had() -> None:
    assert [name for name in streams.__all__ if getattr(streams, name, None) is None] == []


def test_modules_that_the_code_speaks_of_exist() -> None:
    paths = [path for top in ("streams", "agents", "schemas") for path in (ROOT / top).rglob("*.py")]
    modules = {f"/{path.relative_to(ROOT)}": path.read_text() for path in paths}
    unknown = [
        f"{module} speaks of {named}, which does not exist"
        for module, text in sorted(modules.items())
        for named in A_MODULE.findall(text)
        if not any(other.endswith(f"/{named}") for other in modules)
    ]
    assert unknown == []


def test_the_test_can_fail() -> None:
    credit = "streams/core/credit.py"
    text = f"`streams/core/nowhere.py`, `{credit}::Credit.lend`, `{credit}::Credit.next`, `{credit}`, `site.toml`"
    assert list(faults_of(text)) == [
        "`streams/core/nowhere.py`: no such file",
        "`streams/core/credit.py::Credit.lend`: streams/core/credit.py defines no Credit.lend",
    ]
    assert anchors_of(f"## {RULES}\n") == {"where-is-it-decided-that-"}

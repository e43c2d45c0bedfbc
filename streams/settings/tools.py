"""The tools of a site as its configuration names them: `[tools.NAME]` tables.

A command is a list of words, each of which is given to the program as it stands: no shell reads any of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streams.core.channel import CARRIERS, is_tool_name
from streams.core.names import Lfn, shown
from streams.core.records.values import FailureClass
from streams.errors import did_you_mean
from streams.settings.parsing import Reading, Value

TIMEOUT_S = 3600.0
TIMEOUT_S_MAX = 7 * 24 * 3600.0
WORDS = ("source", "target", "bytes", "adler32", "lfn")
"""What a command may name in braces."""
SOURCE_WORDS = ("lfn", "path")
"""What a link's `source` may name in braces: the LFN, and the LFN without its first slash."""
_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_PASSWORD = re.compile(r"://[^/]*:[^/]*@")
PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
"""Variables that every tool gets, where this process has them."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that brings one file. `exits`: failure classes of exit codes that have another than transient.

    `environment`: names of further variables that it gets.
    """

    name: str
    command: tuple[str, ...]
    timeout_s: float = TIMEOUT_S
    exits: Mapping[int, str] = field(default_factory=dict, hash=False)
    environment: tuple[str, ...] = ()

    def words(self, values: Mapping[str, str]) -> list[str]:
        """The command with the values of WORDS in place."""
        return [filled(word, values) for word in self.command]


@dataclass(frozen=True, slots=True)
class LinkTool:
    """A tool that brings files from a site. `source`: where it finds one, URL or path with SOURCE_WORDS in braces."""

    tool: Tool
    source: str

    def source_of(self, lfn: Lfn) -> str:
        return filled(self.source, {"lfn": lfn, "path": lfn[1:]})


def filled(template: str, values: Mapping[str, str]) -> str:
    """In one pass: what a value holds is never read as a template."""
    return _BRACES.sub(lambda found: values[found[1]], template)


def template_fault(template: str, known: tuple[str, ...]) -> str | None:
    """Why it cannot be filled in."""
    for found in _BRACES.finditer(template):
        if found[1] is None:
            return f"a {found[0]} stands alone in {shown(template)!r}"
        if found[1] not in known:
            named = ", ".join(f"{{{word}}}" for word in known)
            return f"{shown(found[0])} is none of {named}"
    return None


def source_fault(raw: object) -> str | None:
    """Why a link's `source` cannot be one."""
    if not isinstance(raw, str) or not raw.isprintable() or " " in raw:
        return "want text without blanks, as root://host//{path}"
    if (why := template_fault(raw, SOURCE_WORDS)) is not None:
        return why
    if not any(f"{{{word}}}" in raw for word in SOURCE_WORDS):
        return "want {lfn} or {path} in it, or every file would be the same"
    if raw.startswith(("-", "{path}")):
        return "want a URL, a host or an absolute path in front: a tool may take it for an option"
    return "want no password in it: name a variable or a file that the tool reads" if _PASSWORD.search(raw) else None


def read_tools(reading: Reading) -> dict[str, Tool]:
    """Every tool that any layer names; each setting from the strongest layer that has it."""
    found: dict[str, dict[str, object]] = {}
    exits: dict[str, dict[int, str]] = {}
    origins: dict[str, str] = {}
    for layer in reading.layers:
        for key, raw in layer.raw.items():
            if not key.startswith("tools."):
                continue
            name, _, setting = key.removeprefix("tools.").partition(".")
            origin = layer.origin(key)
            given = found.setdefault(name, {})
            origins.setdefault(name, origin)
            code = setting.removeprefix("exit.")
            if code != setting:
                _exit(reading, key, code, raw, origin, exits.setdefault(name, {}))
            elif setting not in _FIELDS:
                hint = did_you_mean(setting, _FIELDS)
                what = f"{shown(key)} is not a setting of a tool" + (f" ({hint})" if hint else "")
                reading.faults.append(f"{origin}: {what}")
            elif setting not in given:
                try:
                    given[setting] = _FIELDS[setting](raw)
                    reading.values.append(Value(key, str(raw), origin))
                except ValueError as error:
                    given[setting] = None
                    reading.faults.append(f"{key} = {shown(repr(raw))} from {origin}: {error}")
    tools: dict[str, Tool] = {}
    for name, given in sorted(found.items()):
        if not is_tool_name(name):
            why = "is a carrier" if name in CARRIERS else "want letters, digits, _ and - (40 at most)"
            reading.faults.append(f"{origins[name]}: tools.{shown(name)}: not the name of a tool: {why}")
        elif "command" not in given:
            reading.faults.append(
                f'{origins[name]}: tools.{name} needs a command, as ["cp", "{{source}}", "{{target}}"]'
            )
        elif None not in given.values():
            tools[name] = Tool(name, exits=exits.get(name, {}), **given)  # type: ignore[arg-type]  # by their parsers
    return tools


def _exit(reading: Reading, key: str, code: str, raw: object, origin: str, exits: dict[int, str]) -> None:
    known = [one.value for one in FailureClass]
    if not code.isdecimal() or not 1 <= int(code) <= 255:
        reading.faults.append(f"{origin}: {shown(key)}: want an exit code from 1 to 255")
    elif raw not in known:
        reading.faults.append(f"{key} = {shown(repr(raw))} from {origin}: want one of {', '.join(known)}")
    elif int(code) not in exits:
        exits[int(code)] = str(raw)
        reading.values.append(Value(key, str(raw), origin))


def _command(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        raise ValueError('want a list of words, as ["xrdcp", "{source}", "{target}"]; no shell reads it')
    if not isinstance(raw, list) or not raw or not all(isinstance(word, str) and word for word in raw):
        raise ValueError("want a list of words, the program first, none empty")
    if any("\0" in word for word in raw):
        raise ValueError("want words without NUL")
    for word in raw:
        if (why := template_fault(word, WORDS)) is not None:
            raise ValueError(why)
    if "{" in raw[0] or raw[0].startswith("-"):
        raise ValueError("want a program first")
    for needed in ("source", "target"):
        if not any(f"{{{needed}}}" in word for word in raw[1:]):
            raise ValueError(f"want {{{needed}}} in it")
    return tuple(raw)


def _timeout(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 < raw <= TIMEOUT_S_MAX:
        raise ValueError(f"want seconds above 0, {TIMEOUT_S_MAX:,.0f} at most")
    return float(raw)


def _environment(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(name, str) and _VARIABLE.fullmatch(name) for name in raw):
        raise ValueError('want a list of names of variables, as ["X509_USER_PROXY"]; not their values')
    return tuple(raw)


_FIELDS: dict[str, Callable[[object], object]] = {
    "command": _command,
    "timeout_s": _timeout,
    "environment": _environment,
}

"""LFN → PFN by a site's rules: a prefix, or regular expressions that may chain, as in the CMS storage description.

Pure text. Whether the result lies under a root is the backend's question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.errors import NeverWorks, StorageError

_GROUP = re.compile(r"\$(\d)")


@dataclass(frozen=True, slots=True)
class PathRule:
    """`lfn` must match from the start; `$1`…`$9` of `pfn` are its groups. `chain`: the protocol to ask first."""

    lfn: re.Pattern[str]
    pfn: str
    chain: str | None = None


@dataclass(frozen=True, slots=True)
class PathRules:
    """Rules of every protocol of one storage, and the protocol to start from. The first rule that matches wins."""

    protocol: str
    rules: Mapping[str, tuple[PathRule, ...]]

    @classmethod
    def prefix(cls, prefix: str) -> PathRules:
        """PFN = prefix + LFN, slashes between them folded into one."""
        literal = prefix.rstrip("/").replace("$", "$$")
        return cls("prefix", {"prefix": (PathRule(re.compile(r"/+(.*)"), literal + "/$1"),)})

    @classmethod
    def from_protocols(cls, protocols: Sequence[Mapping[str, Any]], protocol: str) -> PathRules:
        """From the `protocols` list of a storage description: each `{protocol, prefix}` or `{protocol, rules}`."""
        found: dict[str, tuple[PathRule, ...]] = {}
        for entry in protocols:
            name = str(entry.get("protocol", ""))
            if "prefix" in entry:
                found[name] = cls.prefix(str(entry["prefix"])).rules["prefix"]
            else:
                found[name] = tuple(_rule(name, rule) for rule in entry.get("rules", ()))
        if not found.get(protocol):
            raise NeverWorks(f"no path rules for protocol {protocol!r}", next=f"known: {', '.join(found) or 'none'}")
        for name, rules in found.items():
            for rule in rules:
                if rule.chain is not None and rule.chain not in found:
                    raise NeverWorks(f"path rules of protocol {name!r} chain to an unknown one: {rule.chain!r}")
        return cls(protocol, found)

    def pfn(self, lfn: str) -> str:
        """Raises StorageError (permanent) when no rule matches."""
        return self._apply(self.protocol, lfn, ())

    def _apply(self, protocol: str, path: str, seen: tuple[str, ...]) -> str:
        if protocol in seen:
            raise NeverWorks(f"path rules chain in a circle: {' → '.join((*seen, protocol))}")
        for rule in self.rules[protocol]:
            before = path if rule.chain is None else self._apply(rule.chain, path, (*seen, protocol))
            match = rule.lfn.match(before)
            if match:
                return _fill(rule.pfn, match)
        raise StorageError(
            f"no path rule of protocol {protocol!r} matches", path, "add a rule for it", failure_class="permanent"
        )


def _rule(protocol: str, rule: Mapping[str, Any]) -> PathRule:
    try:
        return PathRule(re.compile(str(rule["lfn"])), str(rule["pfn"]), rule.get("chain"))
    except (KeyError, re.error) as error:
        raise NeverWorks(f"a path rule of protocol {protocol!r} is broken: {error}") from error


def _fill(template: str, match: re.Match[str]) -> str:
    pieces = template.split("$$")
    return "$".join(_GROUP.sub(lambda group: _group(match, int(group[1])), piece) for piece in pieces)


def _group(match: re.Match[str], number: int) -> str:
    return (match.group(number) or "") if number <= match.re.groups else ""

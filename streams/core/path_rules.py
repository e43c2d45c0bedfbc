"""LFN → PFN by a site's rules, and back: a prefix, or regular expressions that may chain, as in the CMS storage
description. Pure text; whether the result lies under a root is the backend's question.

    [endpoint]  rules = [{lfn = "/+store/mc/(.*)", pfn = "/data/simulated/$1"}, {prefix = "/data"}]

What is on a disk is read back as LFNs (audit, registration in place). Hence a rule that a site configures is made of
literal text and groups, and each group stands in its `pfn`; any other is refused. Two rules may still give one PFN to
two LFNs: then the one that `lfn` finds has it, and `pfn_of_one` refuses the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from streams.errors import NeverWorks, StorageError, permanent

PROTOCOL = "file"
"""Of rules in a site's configuration that name none: from it PFNs are asked."""
_KEYS = ("lfn", "pfn", "prefix", "chain", "protocol")
_GROUP = re.compile(r"\$(\d)")
_PIECES = re.compile(r"\$\$|\$\d|[^$]+|\$")
_LITERAL = re.compile(r"/\+|\\[^A-Za-z0-9]|[^\\()\[\]{}.*+?|^$]")
_OPEN_GROUP = re.compile(r"\(((?!\?)(?:\\.|\[\^?\]?[^\]]*\]|[^\\()\[])*)\)(?![*+?{])")


@dataclass(frozen=True, slots=True)
class PathRule:
    """`lfn` must match from the start; `$1`…`$9` of `pfn` are its groups. `chain`: the protocol to ask first."""

    lfn: re.Pattern[str]
    pfn: str
    chain: str | None = None

    def back(self, pfn: str) -> str | None:
        """What this rule gives `pfn` for, None if there is nothing. NeverWorks where it cannot be read back."""
        known = _inverse(self.lfn.pattern, self.pfn)
        found = known[0].fullmatch(pfn)
        return None if found is None else "".join(found[piece] if group else piece for group, piece in known[1])


@dataclass(frozen=True, slots=True)
class PathRules:
    """Rules of every protocol of one storage, and the protocol to start from. The first rule that matches wins."""

    protocol: str
    rules: Mapping[str, tuple[PathRule, ...]] = field(hash=False)

    @classmethod
    def prefix(cls, prefix: str) -> PathRules:
        """PFN = prefix + LFN, slashes between them folded into one."""
        return cls("prefix", {"prefix": (_prefix_rule(prefix),)})

    @classmethod
    def from_protocols(cls, protocols: Sequence[Mapping[str, Any]], protocol: str) -> PathRules:
        """From the `protocols` list of a storage description: each `{protocol, prefix}` or `{protocol, rules}`."""
        found: dict[str, tuple[PathRule, ...]] = {}
        for entry in protocols:
            name = str(entry.get("protocol", ""))
            if "prefix" in entry:
                found[name] = (_prefix_rule(str(entry["prefix"])),)
            else:
                found[name] = tuple(_rule(name, rule) for rule in entry.get("rules", ()))
        if not found.get(protocol):
            raise NeverWorks(f"no path rules for protocol {protocol!r}", next=f"known: {', '.join(found) or 'none'}")
        for name, rules in found.items():
            for rule in rules:
                if rule.chain is not None and rule.chain not in found:
                    raise NeverWorks(f"path rules of protocol {name!r} chain to an unknown one: {rule.chain!r}")
        return cls(protocol, found)

    @classmethod
    def configured(cls, entries: object) -> PathRules:
        """From `[endpoint] rules`: a list of `{lfn, pfn}` or `{prefix}`, each maybe with `protocol`, `chain`.

        Raises NeverWorks for what is no such list, and for a rule that does not work both ways.
        """
        if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
            raise NeverWorks('want a list of rules, as [{lfn = "/+store/(.*)", pfn = "/data/$1"}]')
        by_protocol: dict[str, list[Mapping[str, Any]]] = {}
        for no, entry in enumerate(entries, 1):
            _check_entry(no, entry)
            rule = entry
            if "prefix" in entry:
                made = _prefix_rule(entry["prefix"])
                rule = {"lfn": made.lfn.pattern, "pfn": made.pfn}
            by_protocol.setdefault(entry.get("protocol", PROTOCOL), []).append(rule)
        rules = cls.from_protocols(
            [{"protocol": name, "rules": found} for name, found in by_protocol.items()], PROTOCOL
        )
        rules.require_both_ways()
        return rules

    def require_both_ways(self) -> None:
        """Raises NeverWorks if a rule that may be asked cannot be read back, or rules chain in a circle."""
        self._require(self.protocol, (), set())

    @property
    def begins(self) -> list[str]:
        """What the PFNs of each rule begin with, as far as it is the same for all names."""
        return [rule.pfn.replace("$$", "\0").partition("$")[0].replace("\0", "$") for rule in self.rules[self.protocol]]

    def pfn(self, lfn: str) -> str:
        """Raises StorageError (permanent) when no rule matches."""
        return self._apply(self.protocol, lfn, ())

    def lfn(self, pfn: str) -> str | None:
        """The one LFN whose PFN this is (slashes folded), None if no rule gives it. NeverWorks as `back` does."""
        pfn = _folded(pfn)
        for found in self._candidates(self.protocol, pfn, ()):
            try:
                if _folded(self.pfn(found)) == pfn:
                    return found
            except StorageError:
                continue
        return None

    def pfn_of_one(self, lfn: str) -> str:
        """`pfn`, slashes folded, if that is this name's place alone. StorageError (permanent) where another has it."""
        pfn = _folded(self.pfn(lfn))
        owner = self.lfn(pfn)
        if owner != lfn:
            what = f"the path rules give the place of this name to {owner or 'no name'}"
            raise permanent(what, lfn, "use that name, or change the rules")
        return pfn

    def __str__(self) -> str:
        return "; ".join(
            f"{'' if name == self.protocol else name + ': '}{rule.lfn.pattern} → {rule.pfn}"
            + (f" after {rule.chain}" if rule.chain else "")
            for name, rules in self.rules.items()
            for rule in rules
        )

    def _require(self, protocol: str, above: tuple[str, ...], done: set[str]) -> None:
        if protocol in above:
            raise _circle((*above, protocol))
        for rule in self.rules[protocol] if protocol not in done else ():
            _inverse(rule.lfn.pattern, rule.pfn)
            if rule.chain is not None:
                self._require(rule.chain, (*above, protocol), done)
        done.add(protocol)

    def _apply(self, protocol: str, path: str, seen: tuple[str, ...]) -> str:
        if protocol in seen:
            raise _circle((*seen, protocol))
        for rule in self.rules[protocol]:
            before = path if rule.chain is None else self._apply(rule.chain, path, (*seen, protocol))
            match = rule.lfn.match(before)
            if match:
                return _fill(rule.pfn, match)
        raise permanent(f"no path rule of protocol {protocol!r} matches", path, "add a rule for it")

    def _candidates(self, protocol: str, pfn: str, seen: tuple[str, ...]) -> Iterator[str]:
        if protocol in seen:
            raise _circle((*seen, protocol))
        for rule in self.rules[protocol]:
            before = rule.back(pfn)
            if before is not None and rule.chain is not None:
                yield from self._candidates(rule.chain, before, (*seen, protocol))
            elif before is not None:
                yield before


def _circle(chain: Sequence[str]) -> NeverWorks:
    return NeverWorks(f"path rules chain in a circle: {' → '.join(chain)}")


def _prefix_rule(prefix: str) -> PathRule:
    return PathRule(re.compile(r"/+(.*)"), prefix.rstrip("/").replace("$", "$$") + "/$1")


def _check_entry(no: int, entry: object) -> None:
    if not isinstance(entry, Mapping) or any(not isinstance(value, str) for value in entry.values()):
        raise NeverWorks(f"rule {no} is no table of texts")
    for key in entry:
        if key not in _KEYS:
            raise NeverWorks(f"rule {no} has {str(key)[:40]!r}; a rule knows {', '.join(_KEYS)}")
    given = entry.keys() - {"protocol"}
    if given != {"prefix"} and given - {"chain"} != {"lfn", "pfn"}:
        raise NeverWorks(f"rule {no} needs lfn and pfn, or a prefix alone")


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


def _folded(path: str) -> str:
    return re.sub("/+", "/", path)


@lru_cache(1000)
def _inverse(lfn: str, pfn: str) -> tuple[re.Pattern[str], list[tuple[bool, str]]]:
    """Of a rule, what matches a whole PFN, and the pieces of the LFN: (True, name of a group) or (False, text)."""
    pieces: list[tuple[bool, str]] = []
    groups: list[str] = []
    at, end = int(lfn.startswith("^")), len(lfn) - (lfn.endswith("$") and not lfn.endswith("\\$"))
    while at < end:
        if found := _LITERAL.match(lfn, at, end):
            following = lfn[found.end() : found.end() + 1]
            if following in ("*", "+", "?", "{") and following:
                raise _one_way(lfn, f"{found[0]}{following} stands for several texts: put it in a group")
            pieces.append((False, "/" if found[0] == "/+" else found[0][-1]))
        elif found := _OPEN_GROUP.match(lfn, at, end):
            groups.append(found[1])
            pieces.append((True, f"g{len(groups)}"))
        else:
            raise _one_way(lfn, f"{lfn[at : at + 20]!r} is neither text (\\. for a dot) nor a plain group")
        at = found.end()
    made, seen = "", set()
    for piece in _PIECES.findall(_folded(pfn)):
        number = int(piece[1:]) if _GROUP.fullmatch(piece) else 0
        if not _GROUP.fullmatch(piece):
            made += re.escape("$" if piece == "$$" else piece)
        elif not 1 <= number <= len(groups):
            raise _one_way(lfn, f"its pfn has ${number}, and it has {len(groups)} groups")
        else:
            made += f"(?P=g{number})" if number in seen else f"(?P<g{number}>{groups[number - 1]})"
            seen.add(number)
    if len(seen) < len(groups):
        lost = next(no for no in range(1, len(groups) + 1) if no not in seen)
        raise _one_way(lfn, f"its group {lost} is not in its pfn")
    return re.compile(made), pieces


def _one_way(lfn: str, why: str) -> NeverWorks:
    return NeverWorks(f"the path rule {lfn!r} cannot be read back from a PFN to an LFN: {why}")

"""What there is for an audit to read, looked at before it is read: of journals that are not there nothing is clean.

Refused at once (`refuse`), since every finding would be about the mistake: one cluster under two names, another site's
cluster, another partition count, journals that are not kept for ever. Told (`unseen`), and the rest is judged: journals
that do not exist, that begin after their first record, of a cluster that is empty, of a site that nobody named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from streams.auditing.origins import origin_of
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.names import Site
from streams.core.topics import ANNOUNCEMENTS, TO_EVERY_PEER, Retention, split
from streams.errors import InvalidName, NeverWorks, NotAllowed
from streams.kafka import admin
from streams.kafka.replay import replay
from streams.settings import Settings

_PEEKED = 20
"""Records that are looked at to tell whose cluster it is."""
_NAMED_MAX = 3


@dataclass(slots=True)
class Journals:
    """A site's cluster: journals that it must have and has, own ones and copies, those that are missing, all topics.

    `whose`: another site whose cluster this is, as its topics or its first records tell. `begins`, `ends`: offsets of
    each partition of the journals, as noted before anything is read.
    """

    site: Site
    cluster: admin.Cluster
    own: list[str]
    copies: list[str]
    missing: list[str]
    whose: str | None = None
    begins: dict[tuple[str, int], int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def present(self) -> list[str]:
        return [*self.own, *self.copies]


def find_journals(settings: Settings, site: Site) -> Journals:
    """Raises what a cluster that does not answer does."""
    cluster = admin.cluster(settings, site)
    names = [topic.name for topic in admin.needed(settings, site) if topic.retention is Retention.JOURNAL]
    there = [name for name in names if name in cluster.partitions]
    missing = [name for name in names if name not in cluster.partitions]
    found = Journals(site, cluster, [n for n in there if "." not in n], [n for n in there if "." in n], missing)
    found.whose = _whose(settings, found)
    return found


def refuse(settings: Settings, found: Iterable[Journals]) -> None:
    """NeverWorks, in one line, where the registry and the clusters do not speak of the same sites."""
    seen: dict[str, Site] = {}
    for journals in found:
        site, cluster = journals.site, journals.cluster
        if cluster.id and (other := seen.setdefault(cluster.id, site)) != site:
            raise NeverWorks(
                f"{other} and {site} are one cluster, {cluster.id}",
                where=str(settings.sites_path),
                next="give each site its own bootstrap addresses",
            )
        if journals.whose is not None:
            raise NeverWorks(
                f"the cluster at the bootstrap addresses of {site} is that of {journals.whose}",
                where=str(settings.sites_path),
                next="are the addresses of two sites swapped?",
            )
        for name in journals.present:
            if cluster.partitions[name] != settings.registry.partitions:
                raise NeverWorks(
                    f"topic {name} at {site} has {cluster.partitions[name]} partitions, "
                    f"the federation has {settings.registry.partitions}",
                    where=str(settings.sites_path),
                    next="set partitions to what all sites have",
                )


def kept_otherwise(settings: Settings, site: Site, findings: FindingList) -> list[str]:
    """Journals that a site does not keep for ever, a line each; its brokers may not tell."""
    try:
        return admin.kept_otherwise(settings, site)
    except (NotAllowed, NeverWorks):
        findings.cannot(Invariant.NO_GAP, f"whether {site} keeps its journals for ever: its brokers do not tell")
        return []


def refuse_unkept(lines: list[str]) -> None:
    """NeverWorks, in one line, where journals are not kept for ever."""
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise NeverWorks(f"{lines[0]}{more}", next="run `transfer2go topic create`, and ask what was lost meanwhile")


def _whose(settings: Settings, journals: Journals) -> str | None:
    """Another site whose cluster this is, as its topics or its first records tell; None: nothing speaks against it."""
    site = journals.site
    copied = {peer for peer, base in _copies_at(journals) if base in TO_EVERY_PEER}
    if site in copied:
        others = [name for name in settings.registry.names if name != site and name not in copied]
        return others[0] if len(others) == 1 else "another site"
    if ANNOUNCEMENTS not in journals.own:
        return None
    origins = [
        origin.site
        for record in islice(replay(settings, site, [ANNOUNCEMENTS]), _PEEKED)
        if (origin := origin_of(record.headers or ())) is not None
    ]
    if origins and site not in origins:
        return origins[0]
    return None


def _copies_at(journals: Journals) -> set[tuple[Site, str]]:
    found = set()
    for name in journals.cluster.partitions:
        try:
            peer, base = split(name)
        except InvalidName:  # a topic of somebody else
            continue
        if peer is not None:
            found.add((peer, base))
    return found


def unseen(settings: Settings, found: Iterable[Journals]) -> tuple[list[str], set[tuple[Site, str]]]:
    """(a line for each thing that is not to be seen, journals of which not everything is there)."""
    all_found = list(found)
    lines: list[str] = []
    lost: set[tuple[Site, str]] = set()
    for journals in all_found:
        site = journals.site
        if journals.missing:
            lines.append(f"{site} has no {_some(journals.missing)}: run `transfer2go topic create`")
            lost |= {(site, name) for name in journals.missing}
        for name in journals.present:
            begun = {p: at for (topic, p), at in journals.begins.items() if topic == name and at > 0}
            if begun:
                where = ", ".join(f"[{p}] at offset {at}" for p, at in list(begun.items())[:_NAMED_MAX])
                lines.append(f"{name} of {site} begins later than its first record: {where}; what stood before is gone")
                lost.add((site, name))
        for peer, base in sorted(_copies_at(journals)):
            if base == ANNOUNCEMENTS and peer not in settings.registry.names:
                lines.append(f"{site} has copies of journals of {peer}, which {settings.sites_path.name} does not name")
    for journals in all_found:
        copies = f"{journals.site}."
        others = [
            j
            for j in all_found
            if j.site != journals.site and any(end and topic.startswith(copies) for (topic, _), end in j.ends.items())
        ]
        if others and journals.own and not any(end for (n, _), end in journals.ends.items() if n in journals.own):
            who = ", ".join(j.site for j in others[:_NAMED_MAX])
            lines.append(
                f"the cluster of {journals.site} has no record of its own, {who} has copies of some: was it replaced?"
            )
            lost |= {(journals.site, name) for name in journals.present}
    return lines, lost


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_MAX])
    return f"{shown} and {len(names) - _NAMED_MAX} more journals" if len(names) > _NAMED_MAX else f"{shown}"

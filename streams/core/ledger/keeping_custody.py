"""What chains of keeping say of one file, step by step: who would remove it, who promised to keep it, who removed it.

No verdicts: whether a step counts says the audit. Claims of whole blocks and datasets are not told with each file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from streams.core.ledger.custody import Step
from streams.core.ledger.keeping_facts import Ask, Claims, KeepingFact, Promise, Removal
from streams.core.names import Dataset


def keeping_steps(
    dataset: Dataset, file: int, facts: Iterable[KeepingFact], writer: Callable[[int], str]
) -> Iterator[Step]:
    """`file`: the hash of its name. `writer`: the name of an incarnation's writer by its number."""
    for fact in facts:
        words = _words(fact, file)
        if words:
            people = f", by {fact.by}" + (f": {fact.reason}" if fact.reason else "") if fact.by else ""
            served = f", for {fact.cause}" if fact.cause else ""
            told = f"{fact.site} {words} (step {fact.no} about {dataset}{served}{people})"
            yield Step(told, f"{writer(fact.life)} at {fact.site}", fact.at_ms, fact.place)


def _words(fact: KeepingFact, file: int) -> str:
    """ "" of a step that does not speak of the file."""
    match fact.said:
        case Claims() as said:
            names = ("file", file)
            noted = [claim.name for claim in said.noted if names in claim.names]
            return f"noted that {', '.join(noted)} claims it" if noted else ""
        case Ask() as said if file in said.files:
            asked = f"asked {', '.join(said.asked)} to keep it" if said.asked else "asked nobody"
            return f"{asked}, to remove it from {said.endpoint or 'the default endpoint'}"
        case Promise() as said if file in said.files:
            return f"promised to keep it, to ask {said.ask_no} of {said.asker}"
        case Removal() as said:
            group = next((group for group in said.groups if file in group.files), None)
            if group is not None:
                relied = [f"step {no} of {site}" for site, no in group.promises]
                relied += [f"its {endpoint}" for endpoint in group.endpoints]
                return f"removed it by its ask {said.ask_no}, relying on {', '.join(relied) or 'nobody'}"
            return f"keeps it, of its ask {said.ask_no}" if file in said.kept else ""
    return ""

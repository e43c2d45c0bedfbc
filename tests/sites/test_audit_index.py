"""An audit of real journals that goes on where the last one stopped, and histories out of what it kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.auditing.history import file_history, intent_history
from streams.auditing.replaying import audit
from tests.sites.rig import A, B, Rig, Spot, noise

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def test_an_audit_goes_on_and_its_index_tells_histories(rig: Rig, spot: Spot, tmp_path: Path) -> None:
    settings, index = rig.settings(), tmp_path / "audit"
    name = spot.lfn("one")
    rig.register({name: noise(300_000, spot), spot.lfn("empty"): b""}, spot.block())
    first = rig.publish([spot.block()])
    rig.wait_done(first)
    rig.audit()  # nothing waits any more
    whole = audit(settings, index=index)
    assert (whole.exit_code, whole.known) == (0, 0)
    rig.register({spot.lfn("two"): noise(300, spot)}, spot.block("more"))
    second = rig.publish([spot.block("more")])
    rig.wait_done(second)
    rig.audit()
    later = audit(settings, index=index)
    assert later.judgement.broken == ()
    assert later.known == whole.records
    assert 0 < later.records < whole.records
    fresh = audit(settings, index=index, fresh=True)
    assert fresh.known == 0
    assert fresh.records >= later.known + later.records
    assert fresh.judgement.counts == later.judgement.counts
    for intent in (first.id, second.id):
        steps = intent_history(index, intent).steps
        assert "asked for it" in steps[0].words
        assert not [step.words for step in steps if "missing" in step.words]
        assert {step.place.site for step in steps if step.place is not None} == {A, B}
    told = [step.words for step in file_history(index, name).steps]
    assert any(f"{A} registered it" in words for words in told)
    assert any(f"{B} holds" in words for words in told)

"""What records say of themselves: every fact is registered once, and its machine folds what names its rows."""

from __future__ import annotations

from typing import get_args

from streams.core import intent, records, transfer
from streams.core.records.registry import Row


def test_the_union_is_what_is_registered() -> None:
    assert set(get_args(records.Message)) == set(records.registered_classes())


def test_each_machine_folds_the_records_that_name_its_rows() -> None:
    of = {row: {cls for cls in records.registered_classes() if records.row_of_class(cls) is row} for row in Row}
    assert of[Row.INTENT] == set(get_args(intent.IntentMessage))
    assert of[Row.TRANSFER] == set(get_args(transfer.TransferMessage))


def test_a_record_is_in_one_module_of_its_kind() -> None:
    for cls in records.registered_classes():
        assert cls.__module__.startswith("streams.core.records.")
        assert getattr(records, cls.__name__) is cls

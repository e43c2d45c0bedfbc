"""Quantiles of many whole numbers in little memory: counts in buckets, of which each is 4 % wider than the one before.

What is told lies within 2 % of a number that was added, and of the one that a list of all would give.
"""

from __future__ import annotations

from collections import Counter
from math import ceil, exp, log, log1p

_WIDER = 0.04
_STEP = log1p(_WIDER)
ERROR = _WIDER / (2 + _WIDER)
"""Of what is told, at most: a share of the true one. Numbers below 1 are told as 0."""
BUCKETS_MAX = ceil(64 * log(2) / _STEP) + 2
"""Of numbers below 2⁶⁴; times of a day fall into 470 of them, those that are alike into a few."""


class Quantiles:
    """Of numbers ≥ 0, each with a weight: how often it counts."""

    __slots__ = ("_counts", "_weight")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._weight = 0

    def add(self, number: int, weight: int = 1) -> None:
        bucket = 1 + int(log(number) / _STEP) if number >= 1 else 0
        self._counts[bucket] += weight
        self._weight += weight

    def at(self, share: float) -> float | None:
        """The least number that at least this share of the weight does not exceed; None where nothing was added."""
        wanted, passed = share * self._weight, 0
        for bucket, weight in sorted(self._counts.items()):
            passed += weight
            if passed >= wanted:
                # The middle of the bucket [start, (1 + wider) start), as far from both ends in proportion.
                return 0.0 if bucket == 0 else exp((bucket - 1) * _STEP) * (2 * (1 + _WIDER) / (2 + _WIDER))
        return None

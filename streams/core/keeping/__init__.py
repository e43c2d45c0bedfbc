"""Who keeps which file, and how it goes again without losing the last copy. Pure: no I/O, no clock, no chance.

What a site says in a chain are records (`streams/core/records/keeping.py`). `chains.py` folds one chain, `words.py` one
file at one place, `gates.py` says whether a site may do something and why not, `duties.py` what it owes.
"""

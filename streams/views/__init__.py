"""Journals folded into one RocksDB a worker: who holds what, who is alive, every intent. Rebuilt from the log at will.

A view publishes nothing: what it cannot read it hands to its worker.
"""

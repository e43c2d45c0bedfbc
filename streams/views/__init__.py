"""Journals folded into one RocksDB a worker: who holds what, who is alive, every intent. Rebuilt at will."""

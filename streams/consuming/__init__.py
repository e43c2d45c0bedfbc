"""Entries of an intent, read while they come: `EventStream`, and the session with the log of every reader."""

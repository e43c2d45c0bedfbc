"""Entries of an intent, read while they come: a consumer is a small destination, `SITE/NAME`, with its own place."""

"""A source answers requests: files and objects as bytes, entries as batches. Nothing outlives a request."""

"""Entry ranges as leases: any number of processes share a consumer's entries, range by range, each with a command."""

"""The audit: every journal of every site replayed into `core/ledger`, and replicas compared with disks. Read-only."""

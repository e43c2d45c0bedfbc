"""The audit: every journal of every site replayed into the ledger, and replicas compared with disks. Read-only.

The ledger itself is `core/ledger`; it shares no code with the machines it judges. Nothing here publishes.
"""

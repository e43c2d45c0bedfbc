"""What programs and people outside a worker use: ask for transfers, follow them, ask a worker's API.

Nothing here needs a framework, opens a storage or decides for a site: a client publishes and reads.
"""

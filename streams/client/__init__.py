"""What programs and people outside a worker use: ask for transfers, follow them, ask a worker's API."""

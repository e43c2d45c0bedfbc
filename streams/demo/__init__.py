"""The demo, played with the public API only. The command line calls it, and nothing of the product does."""

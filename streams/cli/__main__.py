"""`python -m streams.cli`: the same as `transfer2go`."""

from streams.cli import main

main()

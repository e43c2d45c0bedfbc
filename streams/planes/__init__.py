"""The data plane of a worker: its own process, in which bytes are read, carried and written.

`host` runs the process, `inventory` lists what this site has, `source` answers requests, `destination` makes files of
what comes, `carriers` are the ways that bytes go. A plane decides nothing: orders come in, facts go out.
"""

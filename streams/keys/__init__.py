"""Keys of a site: a root key that is kept offline and certifies working keys, which sign what the site says.

`ed25519` signs and verifies; only it and `files` import the library. `files` makes keys and reads them from disk. What
is signed is said in the core (streams/core/sealing.py); whose root key counts, in sites.toml.
"""

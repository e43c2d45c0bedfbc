"""A federation on one machine, for trying and testing: brokers, mirrors and workers under one supervisor."""

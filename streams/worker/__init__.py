"""A worker's logic without its framework: a record is folded, rows are asked what they owe, effects carry it out.

No Faust and no Kafka client: `agents/` puts Faust around it, the simulation and the tests run it bare.
"""

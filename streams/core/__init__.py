"""Pure: records, names, the machines' rows, what they owe, and the audit's ledger.

No clock, no environment, no log, no file, no chance and nothing async: values in, values out.
"""

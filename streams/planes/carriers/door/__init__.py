"""The carrier `door`: bytes go straight from the source's storage to the destination's, requests stay in the log.

Here is the destination's side, the pulls. Not here: what a door is and what is said on its wire (streams/doors).
"""

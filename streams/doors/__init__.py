"""Doors: a site's listener that gives the bytes of its files over HTTP to who holds a ticket, and clients of such.

What a ticket allows is tickets.py's, what is sent and how sending.py's, who may be connected and for how long
server.py's; what a server of another make must answer is urls.py's. Not here: who asks for what and why (planes),
Kafka, any decision about other ways.
"""

"""Destinations that keep nothing: who reads an intent's entries in order, or shares them out. Pure; rows in memory."""

"""Entries of event files: asked for, read in exact pieces, written and landed. Needs the extra `events`.

Nothing here knows of Kafka, planes, agents or the federation; files are reached through `streams.storage`.
"""

"""Objects inside files: named keys of ROOT files, members of zip and tar archives, each as bytes of its own.

Nothing here knows of Kafka, planes, agents or the federation; files are reached through `streams.storage`.
"""

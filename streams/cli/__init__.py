"""The command line: `transfer2go NOUN VERB`, one noun per file. A verb parses, calls one function, prints, exits."""

from __future__ import annotations

from streams.cli.command import Root

NOUNS = {
    "up": "Start a local federation, or find the one that runs",
    "down": "Stop it",
    "status": "What runs, where, and how it is",
    "doctor": "Check Java, brokers, topics, schemas, clock, disk",
    "demo": "Move real files between two real sites, and show it",
    "site": "Sites: list",
    "file": "Files: register, list, where, diff, history, verify",
    "intent": "Transfer intents: preview, add, show, watch, board, approve, explain, …",
    "event": "Events: columns, show, copy of a file; tail of an intent, work on it",
    "topic": "Topics: create, list, tail, lag",
    "schema": "Record schemas: list, show",
    "dlq": "Dead letters: list, show, requeue",
    "audit": "Replay the topics of all sites, check the invariants; storage: the disks alone",
    "account": "Files, bytes, failures and times by requester, dataset, link, site or day",
    "key": "Keys of a site: init, issue, list, show",
    "rebuild": "Fold every table anew from the journals",
    "config": "Configuration: show, mirror",
}

root = Root(
    NOUNS,
    name="transfer2go",
    help="""Files across sites on a replicated log.

    Exit codes: 0 done, 1 other, 2 usage, 3 no such thing, 4 not allowed, 5 temporary, 6 a transfer ended failed,
    7 will never work as asked, 8 partly done.""",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    root()

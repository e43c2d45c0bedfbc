"""How much a record may hold, each limit with its reason."""

from __future__ import annotations

FILES_MAX = 1000
"""Files of one FilesHeld or FilesLost."""
NAMES_MAX = 1000
"""Selectors of an intent; more is a dataset, a block, or another intent."""
SITES_MAX = 1000
SEALED_JOURNALS_MAX = 1000
"""Of one seal: some 64 KB; more are the next one's."""
WORDS_MAX = 1000
"""Words of one file at a place that an ask or a loss names: of so many landings that found it there."""
NUMBER_MAX = 999_999_999
"""Of source_no and no: what a manifest id can hold."""
POSITION_MAX = 1 << 62
"""End of a manifest's line: sums stay inside an Avro long."""
VALUE_BYTES_MAX = 64 * 1024
KEY_BYTES_MAX = 4 * 1024
"""What a dead letter keeps of a refused record."""

"""Who runs this process: the name under which a person asks and registers where none is given."""

from __future__ import annotations

import os
import pwd


def user_name() -> str:
    """The login name, or the number of a user that has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())

"""The command `remote-exec`: a file and a function for each command, loaded only when it is the one named.

Data goes to stdout and everything else to stderr. Exit codes: 0, 1 for an expected error (a message, and a
hint on its own line), 3 for a bug of ours (with a log fit for an issue), 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

EXPECTED_ERROR, OUR_BUG, INTERRUPTED = 1, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: without the program's name; this process's by default.

    Example:
        >>> main(["config", "path", "--json"])  # doctest: +SKIP
        0
    """
    from .errors import report
    from .group import app

    try:
        code = app.main(
            list(sys.argv[1:] if arguments is None else arguments),
            prog_name="remote-exec",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except BaseException as error:
        return report(error)
    return code if isinstance(code, int) else 0

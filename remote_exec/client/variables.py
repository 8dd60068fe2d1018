"""Which of this process's environment variables its workers get."""

from __future__ import annotations

from collections.abc import Mapping

# What differs from shell to shell and means nothing to a function: it must not part pools.
VOLATILE = frozenset(
    {
        "_", "COLUMNS", "COLORTERM", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "GPG_AGENT_INFO", "INVOCATION_ID",
        "JOURNAL_STREAM", "JPY_PARENT_PID", "JPY_SESSION_NAME", "LINES", "LS_COLORS", "OLDPWD", "PROMPT", "PS1",
        "PWD", "PYTEST_CURRENT_TEST", "SHLVL", "SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "STY",
        "TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "TMUX", "TMUX_PANE", "WINDOWID",
        "XAUTHORITY", "XDG_SESSION_ID",
    }
)  # fmt: skip
VOLATILE_PREFIXES = ("VSCODE_", "PYDEVD_", "REMOTE_EXEC_AGENT_")


def meaningful(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those of the terminal and the session.

    >>> meaningful({"HOME": "/home/u", "SHLVL": "2", "VSCODE_PID": "7"})
    {'HOME': '/home/u'}
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in VOLATILE and not name.startswith(VOLATILE_PREFIXES)
    }

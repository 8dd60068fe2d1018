"""Which of this process's environment variables its workers get."""

from __future__ import annotations

from collections.abc import Mapping

# What differs from shell to shell and means nothing to a function: it must not part pools.
VOLATILE = frozenset(
    {
        "_", "COLUMNS", "COLORTERM", "DBUS_SESSION_BUS_ADDRESS", "DESKTOP_SESSION", "DESKTOP_STARTUP_ID", "DISPLAY",
        "GPG_AGENT_INFO", "GPG_TTY", "INSIDE_EMACS", "INVOCATION_ID", "JOURNAL_STREAM", "JPY_PARENT_PID",
        "JPY_SESSION_NAME", "LINES", "LS_COLORS", "MANAGERPID", "OLDPWD", "PROMPT", "PS1", "PWD",
        "PYTEST_CURRENT_TEST", "SESSION_MANAGER", "SHELL_SESSION_ID", "SHLVL", "SSH_AGENT_PID", "SSH_AUTH_SOCK",
        "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "STY", "SYSTEMD_EXEC_PID", "TERM", "TERMINATOR_UUID",
        "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "TMUX", "TMUX_PANE", "VTE_VERSION",
        "WAYLAND_DISPLAY", "WINDOWID", "WSL_INTEROP", "WT_SESSION", "XAUTHORITY", "XDG_CURRENT_DESKTOP",
        "XDG_RUNTIME_DIR", "XDG_SEAT", "XDG_SEAT_PATH", "XDG_VTNR",
    }
)  # fmt: skip
VOLATILE_PREFIXES = (
    "ALACRITTY_", "GNOME_TERMINAL_", "ITERM_", "KITTY_", "KONSOLE_", "PYDEVD_", "REMOTE_EXEC_AGENT_", "VSCODE_",
    "WEZTERM_", "XDG_SESSION_", "ZELLIJ",
)  # fmt: skip


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

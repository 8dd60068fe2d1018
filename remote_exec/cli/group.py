"""The top command: the names of all commands with a line each, and the loading of the one that is named."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click
from click.shell_completion import CompletionItem

COMMANDS: Mapping[str, str] = {
    "run": "Run a script, or one function of it, remotely.",
    "jobs": "List jobs and calls, or tell everything of one.",
    "logs": "Show what a job printed.",
    "metrics": "Show the numbers that a job logged.",
    "result": "Show what a job returned, or raised.",
    "cancel": "Stop jobs.",
    "stack": "Show what a job is doing now.",
    "debug": "Open pdb on the frames of a job that failed.",
    "top": "Watch jobs, pools, CPU, memory and GPUs.",
    "hosts": "Show this machine and the hosts that were reached; stop or remove an agent.",
    "shell": "Open a shell on a host or where a job runs, or run a command there.",
    "sync": "Bring the local project to a host.",
    "forward": "Have a port of a job's host on this machine.",
    "pools": "List pools of warm workers; release them.",
    "env": "List or remove the environments that were built.",
    "cache": "Show or prune the cache.",
    "config": "Show each option's value and where it comes from.",
    "doctor": "Find out what is wrong, and how to mend it.",
    "completion": "Print the line that turns on completion in a shell.",
}

EXAMPLES = """\b
Examples:
  remote-exec run train.py                       run a script as if it were here
  remote-exec run train.py:fit 0.1 epochs=3      run one function of it
  remote-exec run --dry-run train.py             what would travel, and what not
  remote-exec jobs --state failed                what went wrong lately
  remote-exec debug JOB                          look at the locals of a failed job
  remote-exec doctor                             when nothing works
"""


class Commands(click.Group):
    """Knows the commands by name, and loads a command's module when it is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they are best learnt."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{cmd_name}", __package__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the command that was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from ..options import nearest

            near = nearest(args[0], COMMANDS)
            raise click.UsageError(
                f"there is no command {args[0]!r}{near and f'; did you mean {near!r}?'}", ctx=ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without loading any."""
        found = [CompletionItem(n, help=h) for n, h in COMMANDS.items() if n.startswith(incomplete)]
        return found or super().shell_complete(ctx, incomplete)


@click.group(cls=Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="remote_exec", message="%(package)s %(version)s")
def app() -> None:
    """Run Python functions somewhere bigger, and see what became of them."""

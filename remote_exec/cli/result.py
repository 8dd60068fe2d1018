"""``remote-exec result``: what a job returned, or the traceback of what it raised."""

from __future__ import annotations

from typing import NamedTuple

import click

from ..model.failure import Failure
from .host import ask, ask_whole, far_host, job_argument, on_option, running
from .show import json_option, note, print_json


class Ended(NamedTuple):
    """How a job ended: its pickled value, or its failure."""

    state: str
    data: bytes
    failure: Failure | None


def outcome_of(name: str, *, wait: bool) -> Ended:
    """Ask for a job's outcome.

    Args:
        name: the job.
        wait: until it has ended.

    Raises:
        JobNotFound: there is no such job, or nothing is kept of how it ended.
    """
    from ..model.errors import JobNotFound
    from ..serial.failures import from_json

    record = ask("job", name=name)["job"]
    attached = record["kind"] != "job"
    value, body = ask_whole("result", seconds=None, name=name, wait=wait and not attached)
    if not value["kept"]:
        if value["state"] in ("queued", "running") and not attached:
            raise JobNotFound(
                f"{name} has not ended: it is {value['state']}",
                hint=f"remote-exec logs -f {name}" if running(name) else "remote-exec hosts start",
            )
        raise JobNotFound(
            f"{name} is a call that its caller waits for, who gets its result; only jobs keep theirs",
            hint=f"remote-exec jobs {name}",
        )
    return Ended(
        value["state"], b"" if not value["ok"] else body, None if value["ok"] else from_json(body.decode())
    )


@click.command()
@job_argument
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the value there, pickled."
)
@click.option("--no-wait", is_flag=True, help="Do not wait for a job that has not ended.")
@on_option
@json_option
def command(name: str, *, out: str | None, no_wait: bool, as_json: bool) -> None:
    """Wait for a job, then print the repr of what it returned.

    If it raised, its remote traceback goes to stderr and the exit code is 1.

    \b
    Examples:
      remote-exec result train-1
      remote-exec result train-1 --out model.pickle
      python -c 'import pickle; model = pickle.load(open("model.pickle", "rb"))'
    """
    from ..client.connections import connections
    from ..client.trees import fetch, load
    from ..serial import failures

    ended = outcome_of(name, wait=not no_wait)
    if ended.failure is not None:
        failure = ended.failure
        if as_json:
            error = {"type": f"{failure.module}.{failure.qualname}", "message": failure.message}
            print_json(
                {"name": name, "state": ended.state, "error": error, "traceback": failures.format(failure)}
            )
        else:
            note(failures.format(failure).rstrip())
        raise click.exceptions.Exit(1)
    value, trees = load(ended.data)
    fetch(trees, lambda: connections.session(far_host(name)), name)
    if out is not None:
        import pickle

        with open(out, "wb") as file:
            pickle.dump(value, file, protocol=5)
        note(f"written to {out}")
    if as_json:
        print_json({"name": name, "state": ended.state, "repr": repr(value), "size_bytes": len(ended.data)})
    elif out is None:
        click.echo(repr(value))

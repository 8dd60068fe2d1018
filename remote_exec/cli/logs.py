"""``remote-exec logs``: what a job or call printed, now or as it prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from .host import ask, job_argument, on_option, running, session


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="LINES", help="Begin with the last so many lines."
)
@on_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line: time, stream, text.")
def command(name: str, *, follow: bool, tail: int | None, as_json: bool) -> None:
    """Show what a job printed, stdout and stderr as they came. Ctrl-C ends the command, not the job.

    \b
    Examples:
      remote-exec logs train-1 --tail 20
      remote-exec logs train-1 -f
      remote-exec logs train-1 --json | jq -r 'select(.stream == "err") | .text'
    """
    kept, offset = _so_far(name)
    if tail is not None:
        kept = _last_lines(kept, tail)
    _print(kept, as_json=as_json)
    if follow and running(name):
        for piece in session(name=name).follow("logs", {"name": name, "offset": offset, "follow": True}):
            _print(piece["records"], as_json=as_json)


def _so_far(name: str) -> tuple[list[list[Any]], int]:
    """Return all records that there are now, and where to go on."""
    records: list[list[Any]] = []
    offset = 0
    while True:
        piece = ask("logs", name=name, offset=offset)
        records += piece["records"]
        if piece["offset"] == offset:
            return records, piece["offset"]
        offset = piece["offset"]


def _last_lines(records: list[list[Any]], count: int) -> list[list[Any]]:
    """Return the records' last lines; a record is cut where the first of them begins."""
    kept: list[list[Any]] = []
    for when, stream, text, event in reversed(records):
        if count <= 0:
            break
        lines = text.splitlines(keepends=True)
        kept.append([when, stream, "".join(lines[-count:]), event])
        count -= len(lines)
    return kept[::-1]


def _print(records: list[list[Any]], *, as_json: bool) -> None:
    for text in _texts(records, as_json=as_json):
        click.echo(text, nl=False)


def _texts(records: list[list[Any]], *, as_json: bool) -> Iterator[str]:
    for when, stream, text, event in records:
        if as_json:
            row = {
                "time": when,
                "stream": stream,
                "text": text,
                **({} if event is None else {"event": event}),
            }
            yield f"{json.dumps(row)}\n"
        else:
            yield text

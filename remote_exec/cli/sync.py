"""``remote-exec sync``: the local project as a working copy on a host."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click

from .host import complete_hosts, layout, told
from .show import json_option, note, print_json, size

SECONDS = 600.0


@click.command()
@click.argument("name", metavar="HOST", shell_complete=complete_hosts)
@click.argument(
    "path", default=".", metavar="[PATH]", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@json_option
def command(name: str, path: Path, *, as_json: bool) -> None:
    """Bring the folder PATH (the current one) to HOST, only what has changed there or here; print where it is.

    It is what `include_local_workdir` takes: not what .gitignore or .remote_exec_ignore names, no caches, no virtual
    environments. Files that were brought before and are gone here are removed; what was made there stays.

    \b
    Examples:
      remote-exec sync gpu && remote-exec shell gpu
      remote-exec sync gpu ~/project
    """
    from ..client import inventory
    from ..client.connections import connections
    from ..client.naming import host_named

    host, root = host_named(name), path.resolve()
    capture, paths = _captured(root)
    session = connections.session(host)
    with connections.watch("transfer", root.name) as span:
        sent = session.upload(capture, paths, span)
    question = {
        "bundle": capture.digest,
        "files": [[file.path, file.digest] for file in capture.files],
        "name": root.name or "root",
        "origin": f"{socket.gethostname()}:{root}",
    }
    found = told(session.start("sync", question).result(SECONDS)[0])
    inventory.note_folder(host, str(root), found["folder"])
    if as_json:
        print_json({"host": host.name, **found, "sent_bytes": sent})
        return
    click.echo(found["folder"])
    note(f"{found['written']} files written, {found['removed']} removed; {size(sent)} sent to {host.name}")


def _captured(root: Path) -> tuple[Any, dict[str, Path]]:
    """Return the folder's bundle, and where its files lie, by digest."""
    from ..capture.bundle import bundle_workdir
    from ..capture.function import source_paths
    from ..config import load_config
    from ..options import Options

    options = load_config().resolve(Options())
    capture = bundle_workdir(
        root,
        file_filter=options.custom_file_filter,
        cache_dir=layout().home / "cache" / "index-v1",
        limit_bytes=options.bundle_size_limit,
    )
    return capture.bundle, source_paths(capture.sources)

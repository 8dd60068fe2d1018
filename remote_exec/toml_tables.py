"""Tables of TOML files, kept from one process to the next: the parser takes a start longer than all else it reads.

Kept in the state directory, one for each file, with the digest of the file's whole text, so that none is ever out of
date; but not where anything in it looks secret. Owns nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from .model.digests import digest_of
from .model.environment import mask_credentials
from .model.layout import Layout
from .options import looks_secret

Table = Mapping[str, object]
INSTANCES = "instances"
_OFTEN_SECRET = ("variables", "args", "commands")  # what is passed on to programs


def table_of(
    text: bytes, path: str, environ: Mapping[str, str], *, parse: Callable[[bytes, str], Table | None]
) -> Table | None:
    """Return what `parse` makes of a file's text, or has made of the same text before.

    Args:
        text: the file's content.
        path: the file.
        environ: the environment variables that tell where the state directory is.
        parse: given both, returns the table, or None where there is none for us.
    """
    kept = Layout.of(environ).home / "cache" / "tables-v1" / f"{digest_of(os.path.abspath(path))[:16]}.json"
    digest = digest_of(text)
    with contextlib.suppress(OSError, ValueError, TypeError):
        of, table = json.loads(kept.read_bytes())
        if of == digest:
            return cast("Table | None", table)
    made = parse(text, path)
    with contextlib.suppress(OSError, ValueError, TypeError):  # a date has no place in JSON
        row = json.dumps([digest, made], allow_nan=False)
        if (made is None or _is_harmless(made)) and mask_credentials(row) == row:
            for folder in (kept.parent.parent.parent, kept.parent.parent, kept.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.touch(mode=0o600)
            temporary.write_text(row, encoding="utf-8")
            temporary.replace(kept)
    return made


def _is_harmless(table: Table) -> bool:
    """Whether nothing in our table, or in those of instance types in it, can be a secret."""
    instances = table.get(INSTANCES, {})
    if not isinstance(instances, dict):
        return False
    types = cast("dict[str, Any]", instances)
    tables = [{name: item for name, item in table.items() if name != INSTANCES}, *types.values()]
    return all(
        isinstance(one, dict)
        and not any(
            isinstance(item, dict) or name.endswith(_OFTEN_SECRET) or looks_secret(name)
            for name, item in cast("dict[str, Any]", one).items()
        )
        for one in tables
    )

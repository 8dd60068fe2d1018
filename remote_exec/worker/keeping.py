"""What stays of a call's outcome on the host, for who asks for it later: big results, and the folders they name."""

from __future__ import annotations

import os

from ..model.errors import ResourceLimitExceeded
from ..model.job import Cause
from .lease import Lease, Outcome
from .private import make_private_folder

INLINE_BYTES = 256 << 10  # of a result that lies in the journal itself; a longer one lies among the blobs
TREES_NAME = "trees"  # in a job's folder: the digests of the folders that its result names


def keep_trees(lease: Lease, digests: tuple[str, ...]) -> None:
    """Have trees stay for as long as what is kept of a job: its result needs them."""
    make_private_folder(lease.folder)
    with open(os.path.join(lease.folder, TREES_NAME), "a", encoding="ascii") as file:
        file.writelines(f"{digest}\n" for digest in digests)
        file.flush()
        os.fsync(file.fileno())


def keep_result(lease: Lease, body: bytes) -> str:
    """Put a pickled result among the host's blobs, durably; return its digest.

    Raises:
        OSError: there is no room for it.
    """
    # Imported when needed, as below: a fork server's start is what a first call waits for.
    from ..model.layout import Layout
    from .blobs import BlobStore

    return BlobStore(Layout.beside(lease.attach.jobs_folder).blobs).put(body)


def without_room(outcome: Outcome, size: int, error: OSError) -> Outcome:
    """Return what is told instead of an outcome that could not be kept."""
    from ..serial import failures, failures_json, pickling

    refusal = ResourceLimitExceeded(
        f"what {outcome.about.function} returned has {size:,} bytes, and could not be kept on its host: {error}",
        hint="make room on that machine, or have the function write its result elsewhere",
    )
    text = failures_json.to_json(failures.capture(refusal, dumps=pickling.dump_bytes))
    return outcome._replace(
        ok=False,
        stream=[text.encode()],
        buffers=(),
        cause=Cause.SERIALIZATION,
        summary=refusal.message,
        trees=(),
    )

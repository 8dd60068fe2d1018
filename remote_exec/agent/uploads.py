"""Local code on its way in: bundles are offered, the blobs that are missing are sent, then a bundle is unpacked."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.errors import DeserializationError, RemoteExecError, ResourceLimitExceeded
from ..wire import protocol
from ..wire.frames import expanded
from ..worker.atomic import FULL
from ..worker.blobs import BlobMissing
from .bundles import materialise

if TYPE_CHECKING:
    from ..worker.incoming import Upload
    from .leases import Client
    from .service import Agent

MANY = 32  # blobs
SPENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
AT_ONCE_BYTES = 8 << 20  # what is longer takes a while to reach the disk


def offer_bundle(agent: Agent, client: Client, offer: protocol.OfferBundle) -> None:
    """Answer which blobs of a bundle are missing; with none missing, unpack it first."""
    bundle = offer.bundle
    client.bundles.add(bundle.digest)
    try:
        missing = agent.blobs.missing({file.digest for file in bundle.files})
    except OSError as error:
        _refuse(client, offer.id, error)
        return
    if missing:
        if len(missing) > MANY:  # to wait for the disk once is enough
            client.relaxed.update(missing)
        client.link.send(protocol.Reply(offer.id, {"missing": list(missing)}))
        return

    def done(_: Path | None, error: BaseException | None) -> None:
        if isinstance(error, BlobMissing):
            client.link.send(protocol.Reply(offer.id, {"missing": list(error.digests)}))
            return
        text = "" if error is None else str(error)
        name = "" if error is None else type(error).__name__
        client.link.send(protocol.Reply(offer.id, {"missing": []}, name, text))

    def unpack() -> Path:
        agent.blobs.sync()
        return materialise(bundle, agent.blobs, agent.layout.bundles)

    agent.reactor.in_thread(unpack, done)


def put_blob(agent: Agent, client: Client, put: protocol.PutBlob, body: bytes) -> None:
    """Take in a piece of a blob; publish it with its last one. What was refused is refused to its end."""
    upload: Upload | None = None
    try:
        upload = _upload_of(agent, client, put.digest)
        if upload is not None:
            upload.write(expanded(body) if put.packed else body)
        if put.last:
            del client.uploads[put.digest]
            if upload is not None:
                _commit(agent, client, put, upload)
    except (RemoteExecError, OSError) as error:
        client.uploads[put.digest] = None
        if put.last:
            del client.uploads[put.digest]
        if upload is not None:
            upload.abort()
        _refuse(client, put.id, error)


def _upload_of(agent: Agent, client: Client, digest: str) -> Upload | None:
    if digest not in client.uploads:
        durable = digest not in client.relaxed
        client.relaxed.discard(digest)
        upload = agent.blobs.put_stream(digest, durable=durable)
        if upload.offset:  # a former agent's; this client sends from the beginning
            upload.abort()
            upload = agent.blobs.put_stream(digest, durable=durable)
        client.uploads[digest] = upload
    found: Upload | None = client.uploads[digest]
    return found


def _commit(agent: Agent, client: Client, put: protocol.PutBlob, upload: Upload) -> None:
    def done(_: None, error: BaseException | None) -> None:
        if error is not None:
            upload.abort()
            _refuse(client, put.id, error)
        else:
            client.link.send(protocol.Reply(put.id))

    if upload.offset < AT_ONCE_BYTES:
        upload.commit()
        done(None, None)
    else:
        agent.reactor.in_thread(upload.commit, done)


def _refuse(client: Client, request: int, error: BaseException) -> None:
    told = error_of(error)
    client.link.send(protocol.Reply(request, None, type(told).__name__, told.message))


def error_of(error: BaseException) -> RemoteExecError:
    """Return an error about blobs as whoever asked is told it."""
    if isinstance(error, RemoteExecError):
        return error
    if isinstance(error, BlobMissing):
        return DeserializationError(f"the host does not have the data any longer: {error}")
    if isinstance(error, OSError) and error.errno in FULL:
        return ResourceLimitExceeded(f"there is no room on the host: {error.strerror}")
    if isinstance(error, OSError) and error.errno in SPENT:
        return ResourceLimitExceeded(
            f"the host's agent is at a limit of its system's: {error.strerror}",
            hint="try again when less is under way there; see: ulimit -a",
        )
    return RemoteExecError(f"{type(error).__name__}: {error}")

"""Local code on its way in: bundles are offered, the blobs that are missing are sent, then a bundle is unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..model.errors import RemoteExecError
from ..wire import protocol
from .bundles import materialise
from .cache import BlobMissing

if TYPE_CHECKING:
    from .leases import Client
    from .service import Agent


def offer_bundle(agent: Agent, client: Client, offer: protocol.OfferBundle) -> None:
    """Answer which blobs of a bundle are missing; with none missing, unpack it first."""
    bundle = offer.bundle
    client.bundles.add(bundle.digest)
    missing = agent.blobs.missing({file.digest for file in bundle.files})
    if missing:
        client.link.send(protocol.Reply(offer.id, {"missing": list(missing)}))
        return

    def done(_: Path | None, error: BaseException | None) -> None:
        if isinstance(error, BlobMissing):
            client.link.send(protocol.Reply(offer.id, {"missing": list(error.digests)}))
            return
        text = "" if error is None else str(error)
        name = "" if error is None else type(error).__name__
        client.link.send(protocol.Reply(offer.id, {"missing": []}, name, text))

    agent.reactor.in_thread(lambda: materialise(bundle, agent.blobs, agent.layout.bundles), done)


def put_blob(agent: Agent, client: Client, put: protocol.PutBlob, body: bytes) -> None:
    """Take in a piece of a blob; publish it with its last one."""
    try:
        upload = client.uploads.get(put.digest)
        if upload is None:
            upload = agent.blobs.put_stream(put.digest)
            if upload.offset:  # a former agent's; this client sends from the beginning
                upload.abort()
                upload = agent.blobs.put_stream(put.digest)
            client.uploads[put.digest] = upload
        upload.write(body)
        if put.last:
            del client.uploads[put.digest]
            upload.commit()
            client.link.send(protocol.Reply(put.id))
    except (RemoteExecError, OSError) as error:
        client.uploads.pop(put.digest, None)
        client.link.send(protocol.Reply(put.id, None, type(error).__name__, str(error)))

"""Sessions to hosts: bringing a call to a worker and its outcome back.

* `session`: one connection to one agent; requests, leases, uploads.
* `channel`: one lease: a call stream and what is in flight on it.
* `dispatcher`: the calls of one pool: queue, channels, and who reads.
* `reporter`: what is shown while one waits.
* `trees`: folders that travel with calls and results.
"""

from __future__ import annotations

from ..serial import directories


def _side() -> directories.Side:
    from .trees import ClientSide

    return ClientSide()


directories.install(_side)

"""Sessions to hosts: bringing a call to a worker and its outcome back.

* `runtime`: the archive that hosts carry, made of this installation.
* `session`: one connection to one agent; requests, leases, uploads.
* `channel`: one lease: a call stream and what is in flight on it.
* `dispatcher`: the calls of one pool: queue, channels, and who reads.
* `reporter`: what is shown while one waits.
"""

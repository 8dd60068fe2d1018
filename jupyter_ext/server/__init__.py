"""The server's side of the sidebar: a Jupyter server extension that shows jobs, hosts and pools over HTTP."""

from __future__ import annotations

"""Certificates of the tests' own, by openssl: an authority, a server at 127.0.0.1, a client."""

from __future__ import annotations

import subprocess
from pathlib import Path

FOR = {"server": "subjectAltName=IP:127.0.0.1", "client": "extendedKeyUsage=clientAuth"}


def make_certificates(folder: Path) -> None:
    """Write ``ca.pem``, ``server.pem``, ``server-key.pem``, and the client's ``cert.pem`` and ``key.pem``."""
    folder.mkdir(mode=0o700)
    _openssl(folder, "req -x509 -subj /CN=tests -keyout ca-key.pem -out ca.pem", new_key=True)
    for name, extension in FOR.items():
        key, certificate = ("key.pem", "cert.pem") if name == "client" else ("server-key.pem", "server.pem")
        _openssl(folder, f"req -subj /CN={name} -keyout {key} -out request.pem", new_key=True)
        (folder / "extensions").write_text(extension)
        sign = "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile extensions"
        _openssl(folder, f"{sign} -out {certificate}")


def _openssl(folder: Path, words: str, *, new_key: bool = False) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"] if new_key else []
    subprocess.run(["openssl", *words.split(), *key], cwd=folder, check=True, capture_output=True)

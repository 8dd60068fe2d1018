"""The errors that users meet; the tree is drawn in `remote_exec.model.errors`, which hosts carry too."""

from __future__ import annotations

from .model.errors import (
    ConfigurationError,
    DeserializationError,
    HostUnavailable,
    JobNotFound,
    MaxRuntimeExceeded,
    ProtocolError,
    RemoteError,
    RemoteExecError,
    ResourceLimitExceeded,
    RuntimeEnvironmentError,
    SerializationError,
    SizeLimitExceeded,
    WorkerDied,
)

__all__ = [
    "ConfigurationError",
    "DeserializationError",
    "HostUnavailable",
    "JobNotFound",
    "MaxRuntimeExceeded",
    "ProtocolError",
    "RemoteError",
    "RemoteExecError",
    "ResourceLimitExceeded",
    "RuntimeEnvironmentError",
    "SerializationError",
    "SizeLimitExceeded",
    "WorkerDied",
]

"""Every error that a user can meet, as one tree.

::

    RemoteExecError
    ├── ConfigurationError (ValueError)      an option or a configuration file is wrong
    ├── SerializationError (PicklingError)   something cannot leave: it names the path to it
    ├── DeserializationError                 something cannot arrive: its class is missing here
    ├── RuntimeEnvironmentError              the environment could not be built or entered
    ├── ResourceLimitExceeded                the host could never satisfy the ask, or a quota is passed
    ├── SizeLimitExceeded                    a guard against shipping gigabytes by accident
    ├── HostUnavailable (ConnectionError)    no agent could be brought up or reached
    ├── JobNotFound (LookupError)            no such job, or its retention has ended
    ├── MaxRuntimeExceeded (TimeoutError)    `max_runtime_in_seconds` was passed
    ├── WorkerDied (BrokenExecutor)          the process that ran the call died: its death certificate
    ├── RemoteError                          the function's own exception, whose class is not to be had here
    └── ProtocolError                        a peer said what it must not: a bug, or another version

The standard library only: this module is carried to hosts. The classes call themselves ``remote_exec.errors.*``
on both sides, so that one raised there is the same class here.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .failure import Failure
    from .job import DeathCertificate


class RemoteExecError(Exception):
    """Base of all errors of this project.

    Attributes:
        hint: what the user can do next, as one sentence or command; empty when there is nothing to say.
        retryable: whether the same call may succeed on another attempt.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(cls: type[RemoteExecError], args: tuple[Any, ...], state: dict[str, Any]) -> RemoteExecError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(RemoteExecError, ValueError):
    """An option or a configuration file is wrong; `option` names it."""

    def __init__(self, message: str = "", *, option: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.option = option


class SerializationError(RemoteExecError, PicklingError, TypeError):
    """A value cannot be pickled; `path` leads to the culprit, outermost first."""

    def __init__(self, message: str = "", *, path: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class DeserializationError(RemoteExecError):
    """Bytes arrived whole but cannot be turned into objects here."""


class RuntimeEnvironmentError(RemoteExecError):
    """The environment could not be built or entered; `output` holds the last lines of the tool that failed."""

    def __init__(self, message: str = "", *, output: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.output = output

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.output}" if self.output else text


class ResourceLimitExceeded(RemoteExecError):
    """The host could never satisfy the ask, or a configured quota is passed."""


class SizeLimitExceeded(RemoteExecError):
    """What would travel is larger than the configured guard; the message names the biggest."""


class HostUnavailable(RemoteExecError, ConnectionError):
    """No agent could be brought up or reached."""

    retryable = True


class JobNotFound(RemoteExecError, LookupError):
    """There is no such job, or its retention has ended."""


class MaxRuntimeExceeded(RemoteExecError, TimeoutError):
    """The call ran longer than `max_runtime_in_seconds` and was stopped."""


class WorkerDied(RemoteExecError, BrokenExecutor):
    """The process that ran the call died; `certificate` tells of what."""

    retryable = True

    def __init__(
        self, message: str = "", *, certificate: DeathCertificate | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.certificate = certificate


class RemoteError(RemoteExecError):
    """The function raised an exception whose class cannot be had here; `failure` is that exception as data."""

    def __init__(self, message: str = "", *, failure: Failure | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.failure = failure


class ProtocolError(RemoteExecError):
    """A peer said what it must not: a bug of ours, or a stranger."""


ALL: tuple[type[RemoteExecError], ...] = (
    RemoteExecError,
    ConfigurationError,
    SerializationError,
    DeserializationError,
    RuntimeEnvironmentError,
    ResourceLimitExceeded,
    SizeLimitExceeded,
    HostUnavailable,
    JobNotFound,
    MaxRuntimeExceeded,
    WorkerDied,
    RemoteError,
    ProtocolError,
)

for _class in ALL:
    _class.__module__ = "remote_exec.errors"

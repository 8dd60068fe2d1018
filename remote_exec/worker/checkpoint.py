"""Where a function's checkpoints are kept: the class that users give as an argument, the same on both sides."""

from __future__ import annotations

import os

from ..model.errors import ConfigurationError
from ..model.record import record

LOCAL_PATH = "/opt/ml/checkpoints/"


@record
class CheckpointLocation:
    """A place for checkpoints. As an argument of a call it is a path: SageMaker's class, by meaning.

    Attributes:
        s3_uri: the store's address; or a folder of the host, which is then the path.
        local_path: the folder in which the function reads and writes what is in a store.

    Example:
        >>> import os
        >>> os.fspath(CheckpointLocation("/data/runs/7"))
        '/data/runs/7'
    """

    s3_uri: str = ""
    local_path: str = LOCAL_PATH

    def __fspath__(self) -> str:
        if self.s3_uri and "://" not in self.s3_uri:
            return os.path.abspath(os.path.expanduser(self.s3_uri))
        if self.s3_uri and not os.path.isdir(self.local_path):
            raise ConfigurationError(
                f"nothing here keeps {self.local_path} the same as {self.s3_uri}: checkpoints would be lost",
                hint='on this machine, give it a folder: CheckpointLocation("runs/checkpoints")',
            )
        return self.local_path

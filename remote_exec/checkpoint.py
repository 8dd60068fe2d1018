"""Where a job's checkpoints are kept."""

from __future__ import annotations

from .model.record import record

LOCAL_PATH = "/opt/ml/checkpoints/"


@record
class CheckpointLocation:
    """A place for checkpoints. As an argument of a call it is a path: SageMaker's class, by meaning.

    Attributes:
        s3_uri: the store's address.
        local_path: the folder in which the function reads and writes them.
    """

    s3_uri: str = ""
    local_path: str = LOCAL_PATH

    def __fspath__(self) -> str:
        return self.local_path

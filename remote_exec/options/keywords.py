"""The keyword arguments of `remote`, `RemoteExecutor` and ``f.options``, for type checkers.

Type checkers read only what is written down, so the table's names and types stand here once more; a test
holds the two together. At run time nothing uses this.

Example:
    >>> from typing import Unpack
    >>> def remote(**options: Unpack[OptionKeywords]) -> None: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from .values import HasAddress


class OptionKeywords(TypedDict, total=False):
    """Every option that a keyword sets. ``None`` leaves it to the configuration."""

    instance_type: str | Sequence[str] | None
    cpus: float | None
    memory: int | str | None
    gpus: float | None
    gpu_type: str | None
    image_uri: str | None
    connection_timeout: float | None
    dependencies: str | Path | Sequence[str | Path] | None
    job_conda_env: str | None
    environment_variables: Mapping[str, str] | None
    pre_execution_commands: Sequence[str] | None
    pre_execution_script: str | Path | None
    include_local_workdir: bool | None
    custom_file_filter: Callable[[str, list[str]], Iterable[str]] | Sequence[str] | None
    bundle_size_limit: int | str | None
    name: str | None
    job_name_prefix: str | None
    tags: Sequence[tuple[str, str]] | Mapping[str, str] | None
    detach: bool | None
    cache: bool | None
    max_runtime_in_seconds: float | None
    max_retry_attempts: int | None
    max_parallel_jobs: int | None
    log_size_limit: int | str | None
    checkpoint_location: HasAddress | str | Path | None
    instance_count: int | None
    nproc_per_node: int | None
    use_torchrun: bool | None
    use_mpirun: bool | None
    return_all_ranks: bool | None
    keep_alive_period_in_seconds: float | None
    max_workers: int | None
    role: str | None
    s3_root_uri: str | None
    s3_kms_key: str | None
    volume_size: int | None
    volume_kms_key: str | None
    subnets: Sequence[str] | None
    security_group_ids: Sequence[str] | None
    encrypt_inter_container_traffic: bool | None
    enable_network_isolation: bool | None
    use_spot_instances: bool | None
    max_wait_time_in_seconds: float | None
    spark_config: object
    sagemaker_session: object

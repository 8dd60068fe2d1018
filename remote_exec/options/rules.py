"""What no option alone can tell: which exclude each other, and which a backend does not read."""

from __future__ import annotations

from ..model.errors import ConfigurationError
from .option_set import Origin
from .table import Options

EXCLUSIVE = (
    ("pre_execution_commands", "pre_execution_script"),
    ("spark_config", "image_uri"),
    ("use_torchrun", "use_mpirun"),
)


def check_together(options: Options) -> None:
    """Check what no option alone can tell; call it on the options of one call, all layers resolved.

    Raises:
        ConfigurationError: two options exclude each other, or one limit is below another.
    """
    for one, other in EXCLUSIVE:
        if _matters(options, one) and _matters(options, other):
            raise ConfigurationError(
                f"only one of {one!r} ({options.source(one)}) and {other!r} ({options.source(other)}) "
                "can be set",
                option=one,
            )
    run, wait = options.max_runtime_in_seconds, options.max_wait_time_in_seconds
    if options.use_spot_instances and run is not None and wait is not None and wait < run:
        raise ConfigurationError(
            f"option 'max_wait_time_in_seconds' ({options.source('max_wait_time_in_seconds')}) is {wait:g}, "
            f"but must be at least max_runtime_in_seconds, which is {run:g}",
            option="max_wait_time_in_seconds",
        )


def check_readers(options: Options, backend: str) -> tuple[str, ...]:
    """Find the options that a backend would not read.

    Options from SageMaker's own configuration are passed over: they are set for SageMaker, whatever runs now.

    Args:
        options: the options of one call, all layers resolved.
        backend: the backend that was chosen.

    Returns:
        One sentence for each option that is ignored, to be said once.

    Raises:
        ConfigurationError: ignoring an option would change the outcome.

    Example:
        >>> check_readers(Options.from_keywords(volume_size=50), "local")
        ("option 'volume_size' (decorator) is not read by the backend 'local' and is ignored",)
    """
    ignored: list[str] = []
    for name in options:
        row, source = Options.rows[name], options.source(name)
        if row.read_by(backend) or not _matters(options, name) or source.origin is Origin.SAGEMAKER:
            continue
        sentence = f"option {name!r} ({source}) is not read by the backend {backend!r}"
        if row.must_read:
            raise ConfigurationError(
                f"{sentence}, and ignoring it would change the outcome",
                option=name,
                hint=f"leave it out, or choose an instance type of {', '.join(sorted(row.readers))}",
            )
        ignored.append(f"{sentence} and is ignored")
    return tuple(ignored)


def _matters(options: Options, name: str) -> bool:
    return name in options and options.settings[name].value != Options.rows[name].default

"""SageMaker's own configuration files, for the options that they have.

Read as SageMaker's Python SDK reads them: an administrator's file, and over it the user's, each at its
default place or where ``SAGEMAKER_ADMIN_CONFIG_OVERRIDE`` and ``SAGEMAKER_USER_CONFIG_OVERRIDE`` say. Only
``SageMaker.PythonSDK.Modules.RemoteFunction`` matters here. Paths in them stay relative to the working
directory, as they are there. Files in S3 are not fetched. PyYAML is imported when a file exists.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import cast

from .model.errors import ConfigurationError
from .options import Door, Options, Origin, Source

OVERRIDES = ("SAGEMAKER_USER_CONFIG_OVERRIDE", "SAGEMAKER_ADMIN_CONFIG_OVERRIDE")
SECTION = ("SageMaker", "PythonSDK", "Modules", "RemoteFunction")

KEYS: Mapping[str, str] = {
    "CustomFileFilter.IgnoreNamePatterns": "custom_file_filter",
    "Dependencies": "dependencies",
    "EnableInterContainerTrafficEncryption": "encrypt_inter_container_traffic",
    "EnvironmentVariables": "environment_variables",
    "ImageUri": "image_uri",
    "IncludeLocalWorkDir": "include_local_workdir",
    "InstanceType": "instance_type",
    "JobCondaEnv": "job_conda_env",
    "JobCondaEnvironment": "job_conda_env",
    "PreExecutionCommands": "pre_execution_commands",
    "PreExecutionScript": "pre_execution_script",
    "RoleArn": "role",
    "S3KmsKeyId": "s3_kms_key",
    "S3RootUri": "s3_root_uri",
    "Tags": "tags",
    "VolumeKmsKeyId": "volume_kms_key",
    "VpcConfig.SecurityGroupIds": "security_group_ids",
    "VpcConfig.Subnets": "subnets",
}
_NESTED = frozenset(key.partition(".")[0] for key in KEYS if "." in key)


def sagemaker_files(environ: Mapping[str, str], *, home: str, config_home: str) -> tuple[str, ...]:
    """Return where SageMaker's configuration files would be, the user's first.

    Args:
        environ: environment variables.
        home: the user's home folder.
        config_home: the user's folder for configuration.
    """
    if sys.platform == "darwin":
        support = os.path.join("Library", "Application Support", "sagemaker", "config.yaml")
        defaults = (os.path.join(home, support), os.path.join("/", support))
    else:
        site = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)[0]
        defaults = (
            os.path.join(config_home, "sagemaker", "config.yaml"),
            os.path.join(site, "sagemaker", "config.yaml"),
        )
    return tuple(_file_of(environ.get(name) or path) for name, path in zip(OVERRIDES, defaults, strict=True))


def _file_of(path: str) -> str:
    return os.path.join(path, "config.yaml") if os.path.isdir(path) else path


def read_sagemaker_file(path: str, environ: Mapping[str, str]) -> tuple[Options, tuple[str, ...]]:
    """Read one file's options, and sentences about what it holds that is not understood.

    Raises:
        ConfigurationError: the file is no YAML, an option has a wrong value, or a file that a variable
            names is missing.
    """
    if path.startswith("s3://"):
        return Options(), (
            f"SageMaker's configuration in {path} is not read: only files of this machine are",
        )
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        named = [name for name in OVERRIDES if environ.get(name) and _file_of(environ[name]) == path]
        if named:
            raise ConfigurationError(
                f"{named[0]} names {path}, which cannot be read: {error.strerror}"
            ) from None
        return Options(), ()
    return _options(_section(text, path), path)


def _section(text: bytes, path: str) -> Mapping[str, object]:
    import yaml

    try:
        found: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    for key in SECTION:
        found = cast("Mapping[str, object]", found).get(key) if isinstance(found, Mapping) else None
    return cast("Mapping[str, object]", found) if isinstance(found, Mapping) else {}


def _options(section: Mapping[str, object], path: str) -> tuple[Options, tuple[str, ...]]:
    values: dict[str, object] = {}
    places: dict[str, str] = {}
    notes: list[str] = []
    for key, value in _flat(section).items():
        name = KEYS.get(key)
        if name is None:
            notes.append(f"{path}: RemoteFunction.{key} is not understood and is ignored")
        else:
            values[name], places[name] = value, key

    def source_of(name: str) -> Source:
        return Source(Origin.SAGEMAKER, f"{path}, RemoteFunction.{places[name]}")

    return Options.from_values(values, door=Door.FILE, source_of=source_of), tuple(notes)


def _flat(section: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in section.items():
        if key in _NESTED and isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in cast("Mapping[str, object]", value).items()}
        else:
            flat[key] = value
    return flat

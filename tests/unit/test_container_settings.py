"""What a project's file asks of a container, and what a call changes of it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from remote_exec.backends.docker.engine import open_engine
from remote_exec.backends.docker.settings import ContainerSettings, hidden
from remote_exec.errors import ConfigurationError
from remote_exec.instances import InstanceType, parse_instances
from remote_exec.options import Options

FILE = Path("/work/pyproject.toml")
WHOLE = """
backend = "docker"
engine = "ssh://me@gpu1"
image_uri = "registry.example/team/image:3"
pull = "always"
platform = "linux/arm64"
volumes = ["data:/data:ro", "../shared:/shared", "/cache:/cache:rw"]
gpu_devices = ["0", "2"]
memory_limit = "8 GiB"
cpu_limit = 1.5
pids_limit = 100
shm_size = "1 GB"
user = "jovyan:users"
network_mode = "bridge"
read_only = true
cap_add = ["SYS_PTRACE"]
gpus = 1
"""


def box(text: str) -> InstanceType:
    return parse_instances({"box": tomllib.loads(text)}, path=FILE, key="tool.remote_exec.instances")["box"]


def settings(text: str, options: Options | None = None) -> ContainerSettings:
    instance = box(text)
    return ContainerSettings.of(instance, (options or Options()).over(instance.options))


def test_every_setting_arrives_in_its_normal_form() -> None:
    assert settings(WHOLE) == ContainerSettings(
        instance="box",
        engine="ssh://me@gpu1",
        image="registry.example/team/image:3",
        pull="always",
        platform="linux/arm64",
        volumes=("data:/data:ro", "/shared:/shared:rw", "/cache:/cache:rw"),
        gpu_devices=("0", "2"),
        memory_bytes=8 << 30,
        cpus=1.5,
        pids=100,
        shm_bytes=10**9,
        user="jovyan:users",
        network="bridge",
        read_only=True,
        capabilities=("SYS_PTRACE",),
    )


def test_a_dockerfile_is_found_beside_the_file_and_a_calls_image_ranks_above_it() -> None:
    text = 'backend = "docker"\ndockerfile = "env/Dockerfile"\nbuild_args = { WHO = "me", N = 1 }'
    built = settings(text)
    assert (built.image, built.dockerfile) == ("", "/work/env/Dockerfile")
    assert built.build_args == hidden({"N": "1", "WHO": "me"})
    called = settings(text, Options.from_keywords(image_uri="debian:12"))
    assert (called.image, called.dockerfile, called.build_args) == ("debian:12", "", ())


def test_with_no_image_it_is_pythons_own_in_this_version() -> None:
    assert settings('backend = "docker"').image == f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"


def test_gpus_and_networks_follow_the_call() -> None:
    plain = 'backend = "docker"'
    assert settings(plain).gpu_devices == ()
    assert settings(plain, Options.from_keywords(gpus=1)).gpu_devices == ("all",)
    isolated = Options.from_keywords(enable_network_isolation=True)
    assert settings(plain, isolated).network == "none"
    with pytest.raises(ConfigurationError, match="has the network 'host'"):
        settings(plain + '\nnetwork_mode = "host"', isolated)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "pull = 'sometimes'",
            "box.pull in /work/pyproject.toml must be one of 'missing', 'always', 'never'",
        ),
        ("volumes = ['data:relative']", 'must be a list of texts such as "~/data:/data:ro"'),
        ("volumes = ['~/data:/data:rx']", "box.volumes"),
        ("volumes = ['no/volume:/data']", "box.volumes"),
        ("platform = 'arm64'", "such as linux/arm64"),
        ("memory_limit = 'much'", "box.memory_limit"),
        ("pids_limit = 1", "16 or more"),
        ("user = 'a b'", '"name", "uid" or "uid:gid"'),
        ("netwrok_mode = 'none'", "did you mean 'network_mode'?"),
        ("image = 'a'\ndockerfile = 'b'", "names both an image and a Dockerfile"),
    ],
)
def test_a_wrong_setting_is_told_with_what_is_allowed(line: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        box(f"backend = 'docker'\n{line}")
    assert said in str(caught.value)


def test_without_the_docker_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(ConfigurationError, match=r'pip install "remote_exec\[docker\]"'):
        open_engine("")

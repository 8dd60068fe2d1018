"""Configuration: precedence, files and their errors, instance types, and when files are read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from remote_exec.config import Config, load_config, resolve_instance_types
from remote_exec.errors import ConfigurationError
from remote_exec.instances import shape_of
from remote_exec.model.cost import Price
from remote_exec.model.pool import Shape
from remote_exec.options import Options, Origin

ROOT = Path(__file__).parents[2]
GPU = {"backend": "ssh", "host": "gpu1", "gpus": 1}


class Place:
    """A home, a project in it, and a working directory deeper in the project."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.project = self.home / "project"
        self.cwd = self.project / "src" / "package"
        self.cwd.mkdir(parents=True)
        self.project_file = self.project / "pyproject.toml"
        self.user_file = self.home / ".config" / "remote_exec" / "config.toml"
        self.sagemaker_file = self.home / ".config" / "sagemaker" / "config.yaml"
        self.admin_file = root / "etc" / "sagemaker" / "config.yaml"
        self.environ = {"HOME": str(self.home), "XDG_CONFIG_DIRS": str(root / "etc")}

    def write_project(self, **table: Any) -> None:
        self.project_file.write_text(tomli_w.dumps({"tool": {"remote_exec": table}}))

    def write_user(self, **table: Any) -> None:
        self.user_file.parent.mkdir(parents=True, exist_ok=True)
        self.user_file.write_text(tomli_w.dumps(table))

    def write_sagemaker(self, path: Path | None = None, **section: Any) -> None:
        path = path or self.sagemaker_file
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"PythonSDK": {"Modules": {"RemoteFunction": section}}}
        # JSON is YAML
        path.write_text(json.dumps({"SchemaVersion": "1.0", "SageMaker": document}))

    def load(self) -> Config:
        return load_config(self.cwd, self.environ)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


LAYERS = [origin for origin in Origin if origin is not Origin.DEFAULT]


@given(st.sets(st.sampled_from(LAYERS)))
def test_the_highest_layer_that_sets_an_option_wins_and_is_named(present: set[Origin]) -> None:
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        image = {origin: origin.name.lower() for origin in present}
        if Origin.PROJECT in image:
            place.write_project(image_uri=image[Origin.PROJECT])
        if Origin.USER in image:
            place.write_user(image_uri=image[Origin.USER])
        if Origin.SAGEMAKER in image:
            place.write_sagemaker(ImageUri=image[Origin.SAGEMAKER])
        if Origin.ENVIRONMENT in image:
            place.environ["REMOTE_EXEC_IMAGE_URI"] = image[Origin.ENVIRONMENT]
        if Origin.INSTANCE in image:
            instances = {"gpu": {**GPU, "image": image[Origin.INSTANCE]}}
            table = {"image_uri": image[Origin.PROJECT]} if Origin.PROJECT in image else {}
            place.write_project(**table, instances=instances)
        config = place.load()
        decorator = Options.from_keywords(Origin.DECORATOR, image_uri=image.get(Origin.DECORATOR))
        call = Options.from_keywords(Origin.CALL, image_uri=image.get(Origin.CALL))
        instance = config.instances.get("gpu")
        options = config.resolve(call.over(decorator), instance)

        highest = next((origin for origin in LAYERS if origin in present), Origin.DEFAULT)
        assert options.image_uri == image.get(highest)
        assert options.source("image_uri").origin is highest
        (explained,) = (e for e in config.explain(options, instance) if e.option == "image_uri")
        assert explained.source == str(options.source("image_uri"))


def test_nothing_configured_gives_the_defaults_and_this_machine(place: Place) -> None:
    config = place.load()
    assert list(config.file_options) == []
    assert {e.source for e in config.explain()} == {"default"}
    (local,) = resolve_instance_types(config.resolve(Options()).instance_type, config)
    assert (local.name, local.backend) == ("local", "local")


def test_the_nearest_project_file_with_our_table_counts(place: Place) -> None:
    (place.home / "pyproject.toml").write_text("[tool.remote_exec]\ncpus = 1\n")
    place.write_project(cpus=2)
    (place.cwd / "pyproject.toml").write_text('[project]\nname = "inner"\ndependencies = ["remote_exec"]\n')
    config = place.load()
    assert config.resolve(Options()).cpus == 2
    assert config.files == (place.project_file,)


def test_relative_paths_are_relative_to_the_file_that_holds_them(place: Place) -> None:
    place.write_project(
        dependencies="requirements.txt",
        pre_execution_script="scripts/setup.sh",
        instances={
            "gpu": {**GPU, "identity": "keys/id", "dependencies": ["numpy", "dist/a-1-py3-none-any.whl"]}
        },
    )
    config = place.load()
    options = config.resolve(Options())
    assert options.dependencies == str(place.project / "requirements.txt")
    assert options.pre_execution_script == str(place.project / "scripts" / "setup.sh")
    gpu = config.instances["gpu"]
    assert gpu.settings["identity"] == str(place.project / "keys" / "id")
    assert gpu.options.dependencies == ("numpy", str(place.project / "dist" / "a-1-py3-none-any.whl"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.remote_exec", "is no TOML"),
        ("[tool.remote_exec]\ncpus = 'two'", "'cpus' must be a number, above 0, not 'two'"),
        ("[tool.remote_exec]\ncpu = 2", "there is no option 'cpu'; did you mean 'cpus'?"),
        ("[tool.remote_exec]\nname = 'x'", "'name' is set by keyword argument or command-line flag only"),
        ("[tool.remote-exec]\ncpus = 2", "write [tool.remote_exec]"),
        ("[tool]\nremote_exec = 3", "must be a table"),
        ("[tool.remote_exec.instances]\ngpu = 'ssh'", "tool.remote_exec.instances.gpu in"),
        ("[tool.remote_exec.instances.gpu]\nhost = 'x'", "one of local, ssh, docker"),
        ("[tool.remote_exec.instances.gpu]\nbackend = 'shh'", "did you mean 'ssh'?"),
        ("[tool.remote_exec.instances.gpu]\nbackend = 'ssh'", "names no host"),
        (
            "[tool.remote_exec.instances.gpu]\nbackend = 'ssh'\nhosts = ['a']\ngroup_addresses = { b = '10.0.0.1' }",
            "'b', which is none of its hosts",
        ),
        ("[tool.remote_exec.instances.gpu]\nbackend = 'ssh'\nhoost = 'x'", "did you mean 'host'?"),
        ("[tool.remote_exec.instances.gpu]\nbackend = 'ssh'\nhost = 'x'\nport = 0", "from 1 to 65535"),
        ("[tool.remote_exec.instances.gpu]\nbackend = 'ssh'\nhost = 'x'\ncpus = -1", "instances.gpu.cpus"),
        ("[tool.remote_exec.instances.local]\nbackend = 'ssh'\nhost = 'x'", "'local' is this machine"),
        (
            "[tool.remote_exec.instances.local]\ncost_per_hour = -2",
            "tool.remote_exec.instances.local.cost_per_hour in",
        ),
        (
            "[tool.remote_exec.instances.local]\ncost_per_hour = '2 EUR'",
            "must be a number, above 0, not '2 EUR'",
        ),
        ("[tool.remote_exec.instances.local]\ncost_per_hour = 2\ncurrency = 3", "such as EUR, not 3"),
        ("[tool.remote_exec.instances.local]\ncurrency = 'EUR'", "of no use without cost_per_hour"),
        ("[tool.remote_exec.instances.local]\ncost_per_our = 2", "did you mean 'cost_per_hour'?"),
    ],
)
def test_an_error_names_the_file_and_the_key_and_what_is_allowed(place: Place, text: str, said: str) -> None:
    place.project_file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        place.load()
    assert said in str(caught.value)
    assert str(place.project_file) in str(caught.value)


def test_a_broken_project_file_that_has_nothing_for_us_does_no_harm(place: Place) -> None:
    place.project_file.write_text("[tool.other\n")
    assert place.load().files == ()


def test_instance_types_come_from_both_files_and_the_projects_rank_above(place: Place) -> None:
    place.write_user(
        instances={"gpu": GPU, "big": {"backend": "slurm", "partition": "long", "memory": "1 TB"}}
    )
    place.write_project(instances={"gpu": {**GPU, "host": "gpu2", "gpus": 2, "memory": "8 GiB"}})
    config = place.load()
    gpu, big, aws = resolve_instance_types(["gpu", "big", "ml.g5.xlarge"], config)
    assert (gpu.backend, gpu.settings, gpu.shape.gpus) == ("ssh", {"host": "gpu2"}, 2)
    assert gpu.shape.memory_bytes == 8 * 1024**3
    assert (big.backend, big.settings) == ("slurm", {"partition": "long"})
    assert (aws.backend, aws.settings) == ("sagemaker", {"instance_type": "ml.g5.xlarge"})
    assert str(place.user_file) in big.source


@pytest.mark.parametrize("table", [GPU, {"backend": "local"}, {"backend": "docker", "image": "python:3.11"}])
def test_an_instance_type_of_any_backend_may_have_a_price(place: Place, table: dict[str, object]) -> None:
    priced = {**table, "cost_per_hour": 2, "currency": "EUR"}
    place.write_project(instances={"dear": priced, "plain": {**table, "cost_per_hour": 0.5}, "free": table})
    found = place.load().instances
    assert [found[name].price for name in ("dear", "plain", "free")] == [
        Price(per_hour=2.0, currency="EUR"),
        Price(per_hour=0.5),
        None,
    ]
    assert found["dear"].settings == found["free"].settings


def test_an_unknown_instance_type_is_refused_with_the_known_and_an_example(place: Place) -> None:
    place.write_project(instances={"gpu": GPU})
    with pytest.raises(ConfigurationError) as caught:
        resolve_instance_types("gpus", place.load())
    assert "no instance type 'gpus'; did you mean 'gpu'? Known are gpu, local" in str(caught.value)
    assert "[tool.remote_exec.instances.gpus]" in caught.value.hint
    assert caught.value.option == "instance_type"


def test_a_configured_name_wins_over_sagemakers(place: Place) -> None:
    place.write_project(instances={"ml.g5.xlarge": GPU})
    assert resolve_instance_types("ml.g5.xlarge", place.load())[0].backend == "ssh"


def test_a_worker_claims_for_all_its_processes_and_shares_of_gpus_only_below_a_whole_one() -> None:
    assert shape_of(Options.from_keywords(gpus=0.5, cpus=2)).gpus == 0.5
    launched = Options.from_keywords(gpus=0.25, cpus=2, nproc_per_node=3, use_torchrun=True)
    assert (shape_of(launched).gpus, shape_of(launched).cpus) == (0.75, 6)
    assert shape_of(Options.from_keywords(gpus=0.5).over(launched)).gpus == 2
    assert shape_of(Options()) == Shape()


def test_sagemakers_configuration_gives_its_options(place: Place) -> None:
    place.write_sagemaker(
        Dependencies="path/to/requirements.txt",
        EnableInterContainerTrafficEncryption=True,
        EnvironmentVariables={"EnvVarKey": "EnvVarValue"},
        ImageUri="366666666666.dkr.ecr.us-west-2.amazonaws.com/my-image:latest",
        IncludeLocalWorkDir=True,
        CustomFileFilter={"IgnoreNamePatterns": ["*.ipynb", "data"]},
        InstanceType="ml.m5.large",
        JobCondaEnvironment="your_conda_env",
        PreExecutionCommands=["command_1", "command_2"],
        PreExecutionScript="path/to/script.sh",
        RoleArn="arn:aws:iam::366666666666:role/MyRole",
        S3KmsKeyId="yourkmskeyid",
        S3RootUri="s3://bucket/my-project",
        VpcConfig={"SecurityGroupIds": ["sg123"], "Subnets": ["subnet-1234"]},
        Tags=[{"Key": "yourTagKey", "Value": "yourTagValue"}],
        VolumeKmsKeyId="yourkmskeyid",
        NewInVersion9="x",
    )
    config = place.load()
    options = config.resolve(Options())
    assert options.instance_type == ("ml.m5.large",)
    assert options.dependencies == "path/to/requirements.txt"
    assert options.security_group_ids == ("sg123",)
    assert options.subnets == ("subnet-1234",)
    assert options.tags == (("yourTagKey", "yourTagValue"),)
    assert options.custom_file_filter is not None
    assert options.custom_file_filter.ignore_name_patterns == ("*.ipynb", "data")
    assert options.role == "arn:aws:iam::366666666666:role/MyRole"
    assert len(list(options)) == 17
    assert str(options.source("subnets")).endswith("config.yaml, RemoteFunction.VpcConfig.Subnets")
    assert any("NewInVersion9" in note for note in config.notes)


def test_sagemakers_user_file_ranks_above_the_administrators_and_variables_move_both(place: Place) -> None:
    place.write_sagemaker(place.admin_file, RoleArn="admin", S3RootUri="s3://admin")
    place.write_sagemaker(RoleArn="user")
    options = place.load().resolve(Options())
    assert (options.role, options.s3_root_uri) == ("user", "s3://admin")
    moved = place.home / "elsewhere"
    place.write_sagemaker(moved / "config.yaml", RoleArn="moved")
    place.environ["SAGEMAKER_USER_CONFIG_OVERRIDE"] = str(moved)
    assert place.load().resolve(Options()).role == "moved"
    place.environ["SAGEMAKER_USER_CONFIG_OVERRIDE"] = str(moved / "none.yaml")
    with pytest.raises(ConfigurationError, match="SAGEMAKER_USER_CONFIG_OVERRIDE names"):
        place.load()


def test_a_file_is_read_again_when_it_changes_and_only_then(place: Place) -> None:
    place.write_project(cpus=1)
    first = place.load()
    assert place.load() is first
    place.write_project(cpus=12)
    assert place.load().resolve(Options()).cpus == 12
    (place.cwd / "pyproject.toml").write_text("[tool.remote_exec]\ncpus = 3\n")
    assert place.load().resolve(Options()).cpus == 3
    (place.cwd / "pyproject.toml").unlink()
    place.write_user(memory="1 GB")
    changed = place.load().resolve(Options())
    assert (changed.cpus, changed.memory) == (12, 1_000_000_000)
    place.write_sagemaker(RoleArn="r")
    assert place.load().resolve(Options()).role == "r"
    place.environ["REMOTE_EXEC_CPUS"] = "5"
    assert place.load().resolve(Options()).cpus == 5


def test_a_caller_may_trust_the_files_for_a_while_but_variables_are_always_compared(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    place.write_project(cpus=1)
    first = load_config(place.cwd)
    place.write_project(cpus=22)
    assert load_config(place.cwd, max_age_seconds=600) is first
    monkeypatch.setenv("REMOTE_EXEC_GPUS", "1")
    found = load_config(place.cwd, max_age_seconds=600).resolve(Options())
    assert (found.cpus, found.gpus) == (22, 1)


def test_what_is_shown_of_secrets_is_masked(place: Place) -> None:
    place.write_project(environment_variables={"HF_TOKEN": "hunter2", "MODE": "fast"})
    shown = {e.option: e.value for e in place.load().explain()}
    assert shown["environment_variables"] == "HF_TOKEN=***, MODE=fast"


def test_a_misspelt_variable_is_noted(place: Place) -> None:
    place.environ["REMOTE_EXEC_INSTANCE_TYP"] = "gpu"
    (note,) = place.load().notes
    assert "REMOTE_EXEC_INSTANCE_TYPE" in note


def test_without_files_no_parser_is_imported(place: Place) -> None:
    code = (
        "import sys, remote_exec.config as c; c.load_config(); print({'tomllib', 'yaml'} & set(sys.modules))"
    )
    environ = {**place.environ, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=place.cwd, env=environ
    )
    assert done.stdout.strip() == "set()"

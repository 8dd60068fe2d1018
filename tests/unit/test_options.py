"""The table of options: what it accepts, how it comes in by each door, and what is derived from it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import tomli_w
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from remote_exec.config import load_config
from remote_exec.errors import ConfigurationError
from remote_exec.options import (
    BACKENDS,
    Door,
    OptionKeywords,
    Options,
    Origin,
    check_readers,
    check_together,
    click_options,
    misspelt_variables,
    options_from_environment,
    options_from_flags,
)
from remote_exec.options.file_filter import CustomFileFilter
from remote_exec.options.option_set import CORE
from remote_exec.options.reference import options_markdown
from remote_exec.options.values import size

ROOT = Path(__file__).parents[2]

# a value of each option that is not its default, as users write it
SAMPLES: dict[str, Any] = {
    "instance_type": ["gpu", "local"],
    "cpus": 1.5,
    "memory": "8 GiB",
    "gpus": 2,
    "gpu_type": "A100",
    "image_uri": "python:3.12",
    "connection_timeout": 5,
    "dependencies": ["numpy>=1.20,<3", "pandas"],
    "job_conda_env": "research",
    "environment_variables": {"API_TOKEN": "s3cr3t = 1,2", "THREADS": "4"},
    "pre_execution_commands": ["apt-get install -y git, please", 'echo "$HOME"'],
    "pre_execution_script": "/setup.sh",
    "include_local_workdir": True,
    "custom_file_filter": CustomFileFilter(ignore_name_patterns=("*.csv", "data"), workdir="/project"),
    "bundle_size_limit": "2 GB",
    "name": "train-7",
    "job_name_prefix": "train",
    "tags": {"team": "vision", "empty": ""},
    "detach": True,
    "cache": True,
    "max_runtime_in_seconds": 0.5,
    "max_retry_attempts": 3,
    "max_parallel_jobs": 2,
    "log_size_limit": 1_000_000,
    "checkpoint_location": "s3://bucket/checkpoints",
    "instance_count": 2,
    "nproc_per_node": 8,
    "use_torchrun": True,
    "use_mpirun": True,
    "return_all_ranks": True,
    "keep_alive_period_in_seconds": 0,
    "max_workers": 2,
    "agent_idle_timeout_in_seconds": 60,
    "quotas": {"cpus": 2, "memory": "1 GB"},
    "cache_size_limit": "1 TB",
    "retention_in_days": 1,
    "retention_size_limit": "1 MB",
    "role": "arn:aws:iam::366666666666:role/research",
    "s3_root_uri": "s3://bucket/root",
    "s3_kms_key": "key-1",
    "volume_size": 50,
    "volume_kms_key": "key-2",
    "subnets": ["subnet-1", "subnet-2"],
    "security_group_ids": ["sg-1"],
    "encrypt_inter_container_traffic": True,
    "enable_network_isolation": True,
    "use_spot_instances": True,
    "max_wait_time_in_seconds": 7200,
    "spark_config": object(),
    "sagemaker_session": object(),
}

# the parameters of sagemaker.remote_function.remote, version 2
SAGEMAKER = frozenset(
    {
        "dependencies", "pre_execution_commands", "pre_execution_script",
        "environment_variables", "image_uri", "include_local_workdir", "custom_file_filter",
        "instance_count", "instance_type", "job_conda_env", "job_name_prefix",
        "keep_alive_period_in_seconds", "max_retry_attempts", "max_runtime_in_seconds",
        "role", "s3_kms_key", "s3_root_uri", "sagemaker_session", "security_group_ids", "subnets",
        "tags", "volume_kms_key", "volume_size", "encrypt_inter_container_traffic",
        "spark_config", "use_spot_instances", "max_wait_time_in_seconds", "use_torchrun",
        "use_mpirun", "nproc_per_node", "max_parallel_jobs",
    }
)  # fmt: skip


def expected(name: str) -> Any:
    """The sample's normal form."""
    return Options.rows[name].kind.check(SAMPLES[name])


def names_with(door: Door) -> list[str]:
    return [name for name, row in Options.rows.items() if door in row.doors]


def refusal(**keywords: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Options.from_keywords(**keywords)
    return caught.value


def test_every_row_has_a_sample_that_is_not_its_default() -> None:
    assert SAMPLES.keys() == Options.rows.keys()
    assert not [name for name, row in Options.rows.items() if expected(name) == row.default]


@pytest.mark.parametrize("name", names_with(Door.KEYWORD))
def test_a_keyword_sets_its_option_and_only_that(name: str) -> None:
    options = Options.from_keywords(**{name: SAMPLES[name]})
    assert getattr(options, name) == expected(name)
    assert list(options) == [name]
    assert options.source(name).origin is Origin.DECORATOR
    assert Options.from_keywords(**options.keywords()) == options


@pytest.mark.parametrize("name", names_with(Door.VARIABLE))
def test_a_variable_sets_its_option(name: str) -> None:
    row = Options.rows[name]
    options = options_from_environment({row.variable: row.kind.format(expected(name))})
    assert getattr(options, name) == expected(name)
    assert str(options.source(name)) == f"environment variable {row.variable}"


@pytest.mark.parametrize("name", names_with(Door.FILE))
def test_a_configuration_file_sets_its_option(name: str, tmp_path: Path) -> None:
    plain = Options.rows[name].kind.plain(expected(name))
    (tmp_path / "pyproject.toml").write_text(tomli_w.dumps({"tool": {"remote_exec": {name: plain}}}))
    options = load_config(tmp_path, {"HOME": str(tmp_path)}).file_options
    assert getattr(options, name) == expected(name)
    assert str(options.source(name)) == f"project file {tmp_path / 'pyproject.toml'}, tool.remote_exec.{name}"


def parse_flags(*arguments: str) -> Options:
    found: list[Options] = []

    @click.command()
    @click_options()
    def command(**flags: object) -> None:
        found.append(options_from_flags(flags))

    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


@pytest.mark.parametrize("name", names_with(Door.FLAG))
def test_a_flag_sets_its_option(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    value = expected(name)
    options = parse_flags(flag) if value is True else parse_flags(flag, Options.rows[name].kind.format(value))
    assert getattr(options, name) == value
    assert list(options) == [name]
    assert str(options.source(name)) == f"flag {flag}"


def test_a_lists_flag_may_be_repeated_and_a_boolean_one_denied() -> None:
    options = parse_flags(
        "--dependencies", "numpy<3,>=1", "--dependencies", "pandas", "--tags", "a=1", "--tags", "b=2,c=3",
        "--environment-variables", "A=1,2", "--instance-type", "gpu", "--no-cache",
    )  # fmt: skip
    assert options.dependencies == ("numpy<3,>=1", "pandas")
    assert options.tags == (("a", "1"), ("b", "2"), ("c", "3"))
    assert options.environment_variables == {"A": "1,2"}
    assert options.instance_type == ("gpu",)
    assert options.cache is False
    assert "cache" in options


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("instance_type", "gpu, local", ("gpu", "local")),
        ("dependencies", "requirements.txt", "requirements.txt"),
        ("dependencies", "six", ("six",)),
        ("dependencies", "six, tqdm>=4,<5 pandas[excel,html]", ("six", "tqdm>=4,<5", "pandas[excel,html]")),
        ("dependencies", "six >= 1", ("six >= 1",)),
        ("dependencies", "six @ https://x.org/six.whl", ("six @ https://x.org/six.whl",)),
        ("dependencies", "auto_capure", "auto_capure"),
        ("dependencies", "numpy<3,>=1\npandas", ("numpy<3,>=1", "pandas")),
        ("environment_variables", "A=1\nB=x=y", {"A": "1", "B": "x=y"}),
        ("pre_execution_commands", "echo a, b\necho c", ("echo a, b", "echo c")),
        ("subnets", "one,two", ("one", "two")),
        ("quotas", "gpus=1,memory=2 GB", {"gpus": 1, "memory": 2_000_000_000}),
        ("cache", "Yes", True),
        ("cache", "off", False),
        ("memory", "1.5GiB", 1610612736),
        ("cpus", " 2 ", 2),
    ],
)
def test_variables_take_the_text_that_people_write(name: str, text: str, value: object) -> None:
    assert getattr(options_from_environment({Options.rows[name].variable: text}), name) == value


def test_an_empty_variable_and_a_keyword_of_none_leave_an_option_unset() -> None:
    assert list(options_from_environment({"REMOTE_EXEC_CPUS": ""})) == []
    assert list(Options.from_keywords(cpus=None, tags=None)) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_reader_is_a_backend(backend: str) -> None:
    assert {reader for row in Options.rows.values() for reader in row.readers} <= {CORE, *BACKENDS}


def test_every_parameter_of_sagemakers_decorator_is_taken_under_its_name() -> None:
    assert {name for name, row in Options.rows.items() if row.sagemaker} == SAGEMAKER


def test_signatures_and_table_hold_the_same_options_of_the_same_types() -> None:
    annotations = {name: kind.__forward_arg__ for name, kind in OptionKeywords.__annotations__.items()}
    kinds = {name: Options.rows[name].kind.accepts for name in names_with(Door.KEYWORD)}
    assert annotations == {n: kind if kind == "object" else f"{kind} | None" for n, kind in kinds.items()}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("dependancies", "dependencies"),
        ("instance_typ", "instance_type"),
        ("keep-alive", "keep_alive_period_in_seconds"),
        ("num_gpus", "gpus"),
        ("timeout", "max_runtime_in_seconds"),
        ("env", "environment_variables"),
        ("requirements", "dependencies"),
        ("image", "image_uri"),
        ("max_retries", "max_retry_attempts"),
    ],
)
def test_an_unknown_name_is_refused_with_the_one_that_was_meant(written: str, meant: str) -> None:
    error = refusal(**{written: 1})
    assert f"there is no option {written!r}; did you mean {meant!r}?" in str(error)
    assert error.option == written


def test_an_unknown_name_like_no_other_is_refused_without_a_guess() -> None:
    assert str(refusal(zzzzzz=1)) == "there is no option 'zzzzzz' (decorator)"


WRONG: dict[str, list[object]] = {
    "cpus": [0, -1, "two", True, float("nan"), float("inf")],
    "memory": ["8 XB", "GB", 0, -5, True, "", "1e999 GB"],
    "gpus": [-1, "one", 1.5],
    "max_retry_attempts": [-1, 31, 1.5, "x"],
    "instance_type": ["", [], [1], 7],
    "dependencies": [7, [None], ""],
    "environment_variables": ["A", {"A": None}, {"": "x"}, {"A=B": "x"}, {"A": True}],
    "pre_execution_commands": ["echo one", [1]],
    "tags": ["a", [("a",)], [{"Key": "a"}], [("", "x")]],
    "cache": [1, "maybe"],
    "name": ["a b", "-a", "a/b", "x" * 64, "ends-"],
    "s3_root_uri": ["bucket", "gs://bucket"],
    "subnets": ["subnet-1"],
    "custom_file_filter": [7, {"pattern": []}],
    "checkpoint_location": [7],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_by_name_with_what_was_expected(name: str, value: object) -> None:
    error = refusal(**{name: value})
    assert error.option == name
    assert f"option {name!r} must be {Options.rows[name].kind.text}" in str(error)
    assert str(error).endswith("(decorator)")


def test_a_wrong_variable_or_flag_is_refused_by_its_own_name() -> None:
    with pytest.raises(ConfigurationError, match=r"not 'lots' \(environment variable REMOTE_EXEC_CPUS\)"):
        options_from_environment({"REMOTE_EXEC_CPUS": "lots"})
    with pytest.raises(ConfigurationError, match=r"must be a number, above 0, not '0' \(flag --cpus\)"):
        options_from_flags({"cpus": "0"})
    with pytest.raises(ConfigurationError, match="REMOTE_EXEC_TAGS"):
        options_from_environment({"REMOTE_EXEC_TAGS": "[broken"})


def test_an_option_is_refused_at_a_door_that_is_not_its_own() -> None:
    assert "'cache_size_limit' is set by environment variable or configuration file only" in str(
        refusal(cache_size_limit="1 GB")
    )


def test_no_secret_shows_in_errors_or_representations() -> None:
    error = refusal(environment_variables={"DB_PASSWORD": ["hunter2"]})
    assert "DB_PASSWORD" in str(error)
    assert "hunter2" not in str(error)
    options = Options.from_keywords(environment_variables={"DB_PASSWORD": "hunter2", "MODE": "fast"})
    assert "hunter2" not in repr(options)
    assert "MODE=fast" in repr(options)


def test_misspelt_variables_are_told_and_those_of_other_layers_are_not() -> None:
    environ = {"REMOTE_EXEC_INSTANCE_TYP": "x", "REMOTE_EXEC_HOME": "/x", "REMOTE_EXEC_AGENT_ID": "1"}
    (sentence,) = misspelt_variables(environ)
    assert "REMOTE_EXEC_INSTANCE_TYP" in sentence
    assert "REMOTE_EXEC_INSTANCE_TYPE?" in sentence


def test_a_set_does_not_change_and_survives_pickling() -> None:
    options = Options.from_keywords(cpus=2)
    with pytest.raises(AttributeError, match="cpus"):
        options.cpus = 3
    assert pickle.loads(pickle.dumps(options)) == options


@given(
    st.dictionaries(st.sampled_from(["cpus", "gpus", "max_workers"]), st.integers(1, 9)),
    st.dictionaries(st.sampled_from(["cpus", "gpus", "max_retry_attempts"]), st.integers(1, 9)),
)
def test_laying_one_set_over_another_takes_each_option_from_the_higher(
    high: dict[str, int], low: dict[str, int]
) -> None:
    upper, lower = Options.from_keywords(Origin.CALL, **high), Options.from_keywords(**low)
    both = upper.over(lower)
    assert both.keywords() == {**low, **high}
    assert {n: both.source(n).origin for n in both} == {
        n: Origin.CALL if n in high else Origin.DECORATOR for n in both
    }
    assert (upper.keywords(), lower.keywords()) == (high, low)


@given(st.integers(1, 2**60))
def test_sizes_in_bytes_are_kept_to_the_byte(number: int) -> None:
    kind = size()
    assert (
        kind.check(number) == kind.check(str(number)) == kind.check(kind.parse(kind.format(number))) == number
    )


def test_an_option_that_the_backend_does_not_read_is_told_or_refused() -> None:
    (warning,) = check_readers(Options.from_keywords(volume_size=50, cpus=2, instance_count=1), "local")
    assert warning == "option 'volume_size' (decorator) is not read by the backend 'local' and is ignored"
    assert check_readers(Options.from_keywords(volume_size=50), "sagemaker") == ()
    with pytest.raises(ConfigurationError, match=r"'image_uri'.*'local'.*change the outcome") as caught:
        check_readers(Options.from_keywords(image_uri="python:3.11"), "local")
    assert "docker" in caught.value.hint


@pytest.mark.parametrize(
    "both",
    [
        ("pre_execution_commands", "pre_execution_script"),
        ("use_torchrun", "use_mpirun"),
        ("spark_config", "image_uri"),
    ],
)
def test_options_that_exclude_each_other_are_refused_together(both: tuple[str, str]) -> None:
    one, other = (Options.from_keywords(**{name: SAMPLES[name]}) for name in both)
    check_together(one)
    check_together(other)
    with pytest.raises(ConfigurationError, match=f"only one of '{both[0]}'"):
        check_together(one.over(other))


def test_sagemakers_own_objects_and_shapes_are_understood() -> None:
    class Filter:
        ignore_name_patterns = ("*.csv",)
        workdir = "/w"

    class Location:
        def __init__(self) -> None:
            self._s3_uri = "s3://bucket/x"

        def __fspath__(self) -> str:
            return "/opt/ml/checkpoints"

    options = Options.from_keywords(
        custom_file_filter=Filter(),
        checkpoint_location=Location(),
        tags=[{"Key": "a", "Value": "1"}, ("b", "2")],
    )
    assert options.custom_file_filter == CustomFileFilter(ignore_name_patterns=("*.csv",), workdir="/w")
    assert options.checkpoint_location == "s3://bucket/x"
    assert options.tags == (("a", "1"), ("b", "2"))


def test_the_reference_page_is_current_and_names_every_option() -> None:
    page = (ROOT / "docs" / "reference" / "options.md").read_text(encoding="utf-8")
    assert page == options_markdown(), "run: python -m remote_exec.options --write docs/reference/options.md"
    assert all(f"### `{name}`" in page for name in Options.rows)


def test_importing_the_options_loads_nothing_heavy() -> None:
    code = "import sys, remote_exec.options; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not {"click", "rich", "yaml", "packaging", "tomllib", "difflib", "json"} & set(loaded)

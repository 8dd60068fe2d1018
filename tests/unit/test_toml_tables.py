"""What is kept of configuration files: never out of date, and no secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from remote_exec.config import load_config
from remote_exec.model.errors import ConfigurationError
from remote_exec.options import Options
from remote_exec.toml_tables import table_of

PLAIN = '[tool.remote_exec]\ncpus = 2\n[tool.remote_exec.instances.gpu]\nbackend = "ssh"\nhost = "gpu1"\n'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "REMOTE_EXEC_HOME": str(tmp_path / "state")}


def kept(environ: Mapping[str, str]) -> list[Path]:
    return sorted(Path(environ["REMOTE_EXEC_HOME"], "cache", "tables-v1").glob("*"))


def test_a_file_is_parsed_once_for_all_processes_and_again_when_its_text_is_another(
    environ: dict[str, str],
) -> None:
    parsed: list[bytes] = []

    def parse(text: bytes, _path: str) -> Mapping[str, object] | None:
        parsed.append(text)
        return {"cpus": len(parsed), "hosts": ["a", "b"], "memory": 1.5} if text else None

    def read(text: bytes) -> Mapping[str, object] | None:
        return table_of(text, "/there/pyproject.toml", environ, parse=parse)

    assert read(b"x") == read(b"x") == {"cpus": 1, "hosts": ["a", "b"], "memory": 1.5}
    assert read(b"") is read(b"") is None
    assert read(b"x") == {"cpus": 3, "hosts": ["a", "b"], "memory": 1.5}
    assert parsed == [b"x", b"", b"x"]
    (file,) = kept(environ)
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("[1")
    assert read(b"x") == {"cpus": 4, "hosts": ["a", "b"], "memory": 1.5}, "a damaged one is no trouble"


def test_the_configuration_is_the_same_from_what_was_kept(tmp_path: Path, environ: dict[str, str]) -> None:
    """Two folders, so that nothing that this process remembers plays a part."""
    (tmp_path / "pyproject.toml").write_text(PLAIN)
    found: list[tuple[object, ...]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = load_config(tmp_path / name, environ)
        found.append((config.resolve(Options()).cpus, config.instances["gpu"].settings["host"], config.files))
    assert found[0] == found[1] == (2, "gpu1", (tmp_path / "pyproject.toml",))
    (file,) = kept(environ)
    assert json.loads(file.read_text())[1]["cpus"] == 2
    (tmp_path / "pyproject.toml").write_text(PLAIN.replace("2", "3"))
    assert load_config(tmp_path / "one", environ).resolve(Options()).cpus == 3


@pytest.mark.parametrize(
    "more",
    [
        '[tool.remote_exec.environment_variables]\nTOKEN = "hidden"',
        '[tool.remote_exec]\nenvironment_variables = "TOKEN=hidden"',
        '[tool.remote_exec]\npre_execution_commands = ["login hidden"]',
        '[tool.remote_exec]\ndependencies = ["it @ https://me:hidden@host/it.whl"]',
        '[tool.remote_exec.instances.box]\nbackend = "docker"\nimage_uri = "x"\nregistry_password = "hidden"',
        '[tool.remote_exec.instances.box]\nbackend = "docker"\nbuild_args = {KEY = "hidden"}',
        '[tool.remote_exec]\ninstances = {box = "hidden"}',
    ],
)
def test_what_may_be_secret_is_not_kept(more: str, tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "pyproject.toml").write_text(more)
    try:
        load_config(tmp_path, environ)
    except ConfigurationError:
        pass  # what is wrong is said all the same
    assert not kept(environ)

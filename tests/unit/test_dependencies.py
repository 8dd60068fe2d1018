"""The `dependencies` option: everything a user may give, and what is said when it is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
import uv
import yaml
from hypothesis import given
from hypothesis import strategies as st
from wheels import make_wheel

from remote_exec.agent.builders import tool_environ
from remote_exec.agent.platforms import this_platform
from remote_exec.capture.dependencies import (
    Dependencies,
    ResolvedDependencies,
    conda_environment,
    missing_requirements,
    resolve,
    resolve_dependencies,
)
from remote_exec.capture.installed import closure, pin, providers
from remote_exec.capture.requirements import Requirements
from remote_exec.errors import ConfigurationError, RuntimeEnvironmentError
from remote_exec.model.environment import EnvironmentKind, EnvironmentSpec, mask_credentials
from remote_exec.model.platform import Platform

PYTHON = "3.11"
WHEEL = "plum-1.0-py3-none-any.whl"


def resolved(
    dependencies: Dependencies,
    folder: Path,
    *,
    here: bool = False,
    third_party: dict[str, set[str]] | None = None,
    host: Platform | None = None,
) -> ResolvedDependencies:
    return resolve(
        dependencies,
        third_party=third_party or {},
        here=here,
        python=PYTHON,
        base_folder=folder,
        platform=(lambda: host) if host else None,
    )


def spec_of(
    dependencies: Dependencies,
    folder: Path,
    *,
    here: bool = False,
    third_party: dict[str, set[str]] | None = None,
    host: Platform | None = None,
) -> EnvironmentSpec:
    return resolved(dependencies, folder, here=here, third_party=third_party, host=host).spec


def refusal(dependencies: Dependencies, folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        spec_of(dependencies, folder)
    assert caught.value.option == "dependencies"
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ── None and auto_capture ───────────────────────────────────────────────────────────────────────────────────


def test_nothing_given_is_the_callers_environment_here_and_pins_elsewhere(tmp_path: Path) -> None:
    third_party = {"yaml": {"yaml"}, "packaging": {"packaging.version"}}
    here = spec_of(None, tmp_path, here=True, third_party=third_party)
    assert (here.kind, here.name, here.requirements) == (EnvironmentKind.INTERPRETER, sys.executable, ())
    pins = (f"packaging=={version('packaging')}", f"pyyaml=={version('pyyaml')}")
    for given_value in (None, "auto_capture"):
        there = spec_of(given_value, tmp_path, third_party=third_party)
        assert (there.kind, there.python, there.requirements) == (EnvironmentKind.UV, PYTHON, pins)
    assert spec_of("auto_capture", tmp_path, here=True, third_party=third_party).requirements == pins


def test_what_is_not_installed_as_a_distribution_is_left_out_of_the_pins(tmp_path: Path) -> None:
    third_party = {"no_such_module_x": {"no_such_module_x"}, "json": {"json"}, "remote_exec": {"remote_exec"}}
    assert spec_of("auto_capture", tmp_path, third_party=third_party).requirements == ()


def install(
    site: Path, name: str, *, files: tuple[str, ...], requires: str = "", direct_url: str = ""
) -> None:
    """Lay a distribution out as an installer does."""
    info = site / f"{name.replace('-', '_')}-1.5+local.dist-info"
    for file in files:
        write(site / file, "")
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5+local\n"
    write(info / "METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
    write(info / "RECORD", "".join(f"{file},,\n" for file in files))
    if direct_url:
        write(info / "direct_url.json", direct_url)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_distributions_of_a_namespace_are_told_apart_by_what_is_imported(site: Path) -> None:
    install(site, "space-red", files=("space/red/__init__.py",))
    install(site, "space-blue", files=("space/blue/one.py", "space/blue/two.py"))
    install(site, "space-bluer", files=("space/blue/three.py",))
    assert providers({"space": {"space", "space.red"}}) == {"space": {"space-red"}}
    assert providers({"space": {"space.blue.two"}}) == {"space": {"space-blue"}}
    assert providers({"space": {"space"}}) == {"space": {"space-red", "space-blue", "space-bluer"}}


@pytest.mark.parametrize(
    ("direct_url", "pinned"),
    [
        ("", "thing==1.5"),
        ('{"url": "file:///src/thing", "dir_info": {"editable": true}}', None),
        ('{"url": "file:///gone/thing-1.5-py3-none-any.whl", "archive_info": {}}', "thing==1.5"),
        ('{"url": "https://host/thing.whl", "archive_info": {}}', "thing @ https://host/thing.whl"),
        (
            '{"url": "https://host/thing", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "thing @ git+https://host/thing@abc",
        ),
    ],
)
def test_a_distribution_is_pinned_to_where_it_came_from(
    site: Path, direct_url: str, pinned: str | None
) -> None:
    install(site, "thing", files=("thing.py",), direct_url=direct_url)
    assert pin("thing") == pinned


# ── pins for another platform ───────────────────────────────────────────────────────────────────────────────

ARM = Platform("linux", "aarch64", "glibc", "2.36")
MACHINE = this_platform().machine
OTHER = "x86_64" if MACHINE == "aarch64" else "aarch64"


def resolves(spec: EnvironmentSpec, platform: str, *options: str) -> list[str]:
    """Return what a spec's requirements are resolved to for a platform, wheels only; nothing if they cannot be."""
    argv = [
        uv.find_uv_bin(),
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--python-version",
        f"{sys.version_info[0]}.{sys.version_info[1]}",  # the pins are of what is installed here
    ]
    argv += ["--only-binary", ":all:", "--python-platform", platform, *options, "-"]
    done = subprocess.run(
        argv,
        input="\n".join(spec.requirements),
        env=tool_environ(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    print(spec.requirements, done.stderr)  # shown when it fails
    return done.stdout.split()


def test_where_nothing_is_imported_a_host_needs_a_python_only(tmp_path: Path) -> None:
    third_party = {"json": {"json"}, "no_such_module_x": {"no_such_module_x"}}
    bare = spec_of(None, tmp_path, third_party=third_party)
    assert bare == EnvironmentSpec(kind=EnvironmentKind.INTERPRETER, python=PYTHON)
    assert spec_of("auto_capture", tmp_path, third_party=third_party).kind is EnvironmentKind.UV


@pytest.mark.parametrize(
    "platform", ["aarch64-unknown-linux-gnu", "aarch64-unknown-linux-musl", "x86_64-unknown-linux-musl"]
)
def test_pins_hold_on_other_architectures_and_c_libraries(tmp_path: Path, platform: str) -> None:
    third_party = {"numpy": {"numpy"}, "pandas": {"pandas"}, "yaml": {"yaml"}}
    spec = spec_of(None, tmp_path, third_party=third_party, host=ARM)
    found = resolves(spec, platform)
    assert {f"{name}=={version(name)}" for name in ("numpy", "pandas", "pyyaml")} <= set(found)


def test_what_is_needed_on_this_platform_only_is_not_asked_for_on_another(site: Path, tmp_path: Path) -> None:
    install(site, "outer", files=("outer.py",), requires=f"inner; platform_machine == '{MACHINE}'")
    install(site, "inner", files=("inner.py",))
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, "outer", version="1.5", requires=f"inner; platform_machine == '{MACHINE}'")
    offline = ("--no-index", "--find-links", str(index))
    imported = {"outer": {"outer"}, "inner": {"inner"}}
    spec = spec_of(None, tmp_path, third_party=imported)
    assert resolves(spec, f"{OTHER}-unknown-linux-gnu", *offline) == ["outer==1.5"]
    assert resolves(spec, f"{MACHINE}-unknown-linux-gnu", *offline) == []
    make_wheel(index, "inner", version="1.5")
    assert resolves(spec, f"{MACHINE}-unknown-linux-gnu", *offline) == ["inner==1.5", "outer==1.5"]
    assert spec_of("auto_capture", tmp_path, here=True, third_party=imported).requirements == (
        "inner==1.5",
        "outer==1.5",
    )


def test_a_local_version_is_asked_for_as_the_hosts_index_has_it_and_that_is_said(
    site: Path, tmp_path: Path
) -> None:
    install(site, "thing", files=("thing.py",))  # 1.5+local
    third_party = {"thing": {"thing"}, "packaging": {"packaging"}}
    there = resolved(None, tmp_path, third_party=third_party)
    assert "thing==1.5" in there.spec.requirements
    assert there.notes == ("thing is 1.5+local here; the host gets thing 1.5 as its index has it",)
    assert resolved("auto_capture", tmp_path, here=True, third_party=third_party).notes == ()
    assert spec_of(["thing==1.5+local"], tmp_path).requirements == ("thing==1.5+local",)  # as the user says


@pytest.mark.parametrize(
    ("tag", "hosts"),
    [
        ("py3-none-any", {"arm", "x86", "musl", "mac"}),
        ("cp311-cp311-linux_x86_64", {"x86", "musl"}),
        ("cp311-cp311-manylinux_2_28_x86_64", {"x86"}),
        ("cp311-cp311-manylinux_2_39_x86_64", set[str]()),
        ("cp39-abi3-manylinux2014_aarch64.musllinux_1_1_x86_64", {"arm", "musl"}),
        ("cp312-cp312-manylinux_2_17_x86_64", set[str]()),
        ("cp311-cp311-macosx_11_0_arm64", {"mac"}),
    ],
)
def test_a_wheel_travels_to_hosts_that_it_is_built_for(tmp_path: Path, tag: str, hosts: set[str]) -> None:
    wheel = tmp_path / f"plum-1.0-{tag}.whl"
    wheel.touch()
    platforms = {
        "arm": ARM,
        "x86": Platform("linux", "x86_64", "glibc", "2.36"),
        "musl": Platform("linux", "x86_64", "musl", "1.2"),
        "mac": Platform("darwin", "aarch64", "", "14.5"),
    }
    for name, host in platforms.items():
        if name in hosts:
            assert spec_of([wheel], tmp_path, host=host).wheels[0][0] == wheel.name
        else:
            with pytest.raises(
                ConfigurationError, match=f"plum.*not built for the host, which is {host.system}"
            ):
                spec_of([wheel], tmp_path, host=host)


@pytest.mark.parametrize(
    "url",
    [
        "{folder}/thing-1.5-cp311-cp311-linux_x86_64.whl",
        "https://host/thing-1.5-cp311-cp311-linux_x86_64.whl",
        "file:///home/me/thing.git",
    ],
)
def test_what_was_installed_from_a_build_for_this_platform_is_pinned_by_version_for_another(
    site: Path, tmp_path: Path, url: str
) -> None:
    url = url.format(folder=tmp_path.as_uri())
    write(tmp_path / "thing-1.5-cp311-cp311-linux_x86_64.whl", "")
    about = '"vcs_info": {"vcs": "git", "commit_id": "abc"}' if url.endswith(".git") else '"archive_info": {}'
    install(site, "thing", files=("thing.py",), direct_url=f'{{"url": "{url}", {about}}}')
    third_party = {"thing": {"thing"}}
    spec = spec_of(None, tmp_path, third_party=third_party, host=ARM)
    assert (spec.requirements, spec.wheels) == (("thing==1.5",), ())
    assert spec_of("auto_capture", tmp_path, here=True, third_party=third_party) != spec


# ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("given", [["hypothesis>=6"], "requirements.txt", "auto_capture", None])
def test_what_runs_the_code_is_added_where_the_user_has_not_named_it(
    tmp_path: Path, given: list[str] | str | None
) -> None:
    (tmp_path / "requirements.txt").write_text("hypothesis>=6\n")
    found = resolve(
        given,
        third_party={},
        requires=("hypothesis", "yaml", "no_such_module"),
        here=False,
        python=PYTHON,
        base_folder=tmp_path,
    )
    named = given not in ("auto_capture", None)
    asked = "hypothesis>=6" if named else f"hypothesis=={version('hypothesis')}"
    assert set(found.spec.requirements) == {asked, f"pyyaml=={version('pyyaml')}"}


def test_a_list_may_mix_requirements_options_and_wheels(tmp_path: Path) -> None:
    wheel = tmp_path / "dist" / WHEEL
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("plum.py", "")
    digest = f"sha256:{sha256(wheel.read_bytes()).hexdigest()}"
    lines = [
        "numpy>=2 ; python_version > '3'",
        "--extra-index-url https://host/simple",
        "pip @ https://h/p.whl",
    ]
    for wheel_item in (f"dist/{WHEEL}", Path("dist") / WHEEL, wheel, f"plum[extra] @ {wheel.as_uri()}"):
        found = resolved([*lines, wheel_item], tmp_path)
        extra = ("plum[extra]",) if "@" in str(wheel_item) else ()
        assert found.spec.requirements == (*lines, *extra)
        assert found.spec.wheels == ((WHEEL, digest),)
        assert found.wheel_files == {digest: wheel}


@pytest.mark.parametrize(
    ("dependencies", "words"),
    [
        (["six", "numpy=>2"], ("item 2", "'numpy=>2'")),
        (["six", 3], ("item 2", "3")),
        (["six", ""], ("item 2",)),
        (["a=>1 @ https://me:pw@host"], ("item 1", "https://***@host")),
        (["-e ."], ("item 1", "travel by themselves", "wheel")),
        (["./src"], ("item 1", "travel by themselves")),
        ([f"dist/{WHEEL}"], ("item 1", "no wheel", "uv build")),
        (["--indexurl https://x"], ("--indexurl", "--index-url")),
        ({"six": "1"}, ("dict", "requirements.txt", "auto_capture")),
        (7, ("int", "auto_capture")),
        ("auto_captures", ("did you mean 'auto_capture'", "environment.yml")),
        ("requirement.txt", ("did you mean 'requirements.txt'",)),
        ("numpy>=2", ("dependencies=['numpy>=2']",)),
        ("nothing/like/this", ("no file", "accepted")),
        ("setup.cfg", ("setup.cfg", "accepted")),
        ("empty", ("no pyproject.toml",)),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(
    tmp_path: Path, dependencies: Dependencies, words: tuple[str, ...]
) -> None:
    for name in ("requirements.txt", "setup.cfg", "empty/file"):
        write(tmp_path / name, "")
    message = refusal(dependencies, tmp_path)
    for word in words:
        assert word in message


# ── requirements.txt ────────────────────────────────────────────────────────────────────────────────────────


def test_a_requirements_file_is_flattened_with_all_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_FOR_TEST", "sesame")
    write(
        tmp_path / "requirements.txt",
        "# ours\n-r more/base.txt\n--constraint=bounds.txt\n-i https://me:${TOKEN_FOR_TEST}@host/simple\n"
        "six==1.16 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb  # why\n"
        "pip @ https://host/p.whl#sha256=cc\n--prefer-binary\n--pre\n",
    )
    write(tmp_path / "more" / "base.txt", "-r ../requirements.txt\nnumpy\n-c limits.txt\n")
    write(tmp_path / "more" / "limits.txt", "numpy<3\n")
    write(tmp_path / "bounds.txt", "numpy!=2.1\n-r more/limits.txt\n")
    spec = spec_of("requirements.txt", tmp_path)
    assert spec.requirements == (
        "numpy",
        "--index-url https://me:sesame@host/simple",
        "six==1.16 --hash=sha256:aa --hash=sha256:bb",
        "pip @ https://host/p.whl#sha256=cc",
        "--pre",
    )
    assert spec.constraints == ("numpy<3", "numpy!=2.1")
    assert "sesame" not in repr(spec)


@pytest.mark.parametrize(
    "line", ["-e .", "--editable=./lib", "./lib", "lib @ file:///src/lib", "../a.tar.gz"]
)
def test_code_of_this_machine_in_a_requirements_file_is_refused_with_its_line(
    tmp_path: Path, line: str
) -> None:
    write(tmp_path / "requirements.txt", f"six\n\n{line}\n")
    message = refusal("requirements.txt", tmp_path)
    assert "requirements.txt, line 3" in message
    assert "travel by themselves" in message


def test_a_folder_of_wheels_is_an_index_on_this_machine_only(tmp_path: Path) -> None:
    write(tmp_path / "requirements.txt", "--find-links wheels\nsix\n")
    here = spec_of("requirements.txt", tmp_path, here=True)
    assert here.requirements[0] == f"--find-links {tmp_path.resolve()}/wheels"
    assert "folder of this machine" in refusal("requirements.txt", tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "--find-links file:///opt/wheels",
        "--index-url=file:///srv/simple",
        "--extra-index-url ./simple",
        "-f C:\\wheels",
        "lib @ git+file:///src/lib@main",
        "C:\\src\\lib",
    ],
)
def test_what_only_this_machine_can_read_is_refused_for_another_by_name(tmp_path: Path, line: str) -> None:
    write(tmp_path / "requirements.txt", f"six\r\n{line}\r\n")
    message = refusal("requirements.txt", tmp_path)
    assert "requirements.txt, line 2" in message
    assert "of this machine" in message


def test_a_file_written_on_windows_is_read_as_one_written_here(tmp_path: Path) -> None:
    make_wheel(tmp_path, "plum")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_bytes(b"\xef\xbb\xbfnumpy>=2 \\\r\n  ; python_version > '3'\r\n")
    (tmp_path / "requirements.txt").write_bytes(
        b"-r more\\base.txt\r\n.\\plum-1.0-py3-none-any.whl\r\nsix\r\n"
    )
    found = spec_of("requirements.txt", tmp_path)
    assert found.requirements == ("numpy>=2 ; python_version > '3'", "six")
    assert [name for name, _ in found.wheels] == [WHEEL]


def test_a_missing_nested_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "requirements.txt", "-r gone.txt\n")
    assert "gone.txt cannot be read" in refusal("requirements.txt", tmp_path)


@given(text=st.text(alphabet="ab-=rce#\\\n $ {}@:/.[];<>'\"0", max_size=40))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text)
    gathered = Requirements(here=True)
    try:
        gathered.add_file(path)
    except ConfigurationError:
        return
    assert all(line == line.strip() and "\n" not in line for line in gathered.lines)


# ── pyproject.toml, uv.lock, scripts ────────────────────────────────────────────────────────────────────────

PYPROJECT = """
[project]
name = "mine"
version = "0"
requires-python = ">=3.10"
dependencies = ["six>=1.16", "tool[fast]; sys_platform == 'linux'"]
[tool.uv.sources]
tool = { git = "https://host/tool", tag = "v1" }
[[tool.uv.index]]
url = "https://host/simple"
"""


def test_a_project_without_a_lock_gives_its_dependencies_sources_and_indexes(tmp_path: Path) -> None:
    write(tmp_path / "project" / "pyproject.toml", PYPROJECT)
    for given_value in ("project", "project/pyproject.toml", tmp_path / "project"):
        assert spec_of(given_value, tmp_path).requirements == (
            "--extra-index-url https://host/simple",
            "six>=1.16",
            'tool[fast] @ git+https://host/tool@v1 ; sys_platform == "linux"',
        )


LOCK = """
version = 1
requires-python = ">=3.10"
[[package]]
name = "mine"
version = "0"
source = { virtual = "." }
[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://host/simple" }
"""


def test_a_project_with_a_lock_travels_as_its_files(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", PYPROJECT)
    write(tmp_path / "uv.lock", LOCK)
    for given_value in (".", "pyproject.toml", "uv.lock"):
        spec = spec_of(given_value, tmp_path)
        assert spec.kind is EnvironmentKind.PROJECT
        assert dict(spec.files) == {"pyproject.toml": PYPROJECT, "uv.lock": LOCK}
    third_party = {"six": {"six"}, "yaml": {"yaml"}}
    assert missing_requirements(spec, third_party) == ["yaml"]


def test_a_lock_that_takes_packages_from_this_machine_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", PYPROJECT)
    other = '[[package]]\nname = "lib"\nversion = "0"\nsource = { editable = "../lib" }\n'
    write(tmp_path / "uv.lock", LOCK + other)
    assert "takes lib from a folder" in refusal(".", tmp_path)
    write(tmp_path / "uv.lock", LOCK.replace("https://host/simple", "file:///srv/simple"))
    assert "takes six from a folder" in refusal(".", tmp_path)
    assert spec_of(".", tmp_path, here=True).kind is EnvironmentKind.PROJECT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.x]\n", "no [project] table"),
        ('[project]\ndynamic = ["dependencies"]\n', "uv lock"),
        ("[project\n", "not valid TOML"),
        (PYPROJECT.replace('git = "https://host/tool", tag = "v1"', "workspace = true"), "source of 'tool'"),
        (PYPROJECT.replace("six>=1.16", "six=>1"), "dependency 1"),
        (PYPROJECT.replace(">=3.10", "3.x"), "not a version specifier"),
    ],
)
def test_a_project_that_cannot_be_told_elsewhere_says_why(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path / "pyproject.toml", text)
    assert words in refusal("pyproject.toml", tmp_path)


SCRIPT = """
import six
# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "six<2",
#   "rich",
# ]
# ///
print(six)
"""


def test_a_scripts_block_gives_its_dependencies(tmp_path: Path) -> None:
    write(tmp_path / "train.py", SCRIPT)
    assert spec_of("train.py", tmp_path).requirements == ("six<2", "rich")
    write(tmp_path / "last_line.py", "# /// script\n# dependencies = ['six']\n# ///")
    assert spec_of("last_line.py", tmp_path).requirements == ("six",)
    write(tmp_path / "bare.py", "print()\n")
    assert "has no `# /// script` block" in refusal("bare.py", tmp_path)
    write(tmp_path / "twice.py", SCRIPT + SCRIPT)
    assert "more than one" in refusal("twice.py", tmp_path)


def test_a_requires_python_that_shuts_the_caller_out_is_said_before_anything_runs(tmp_path: Path) -> None:
    write(tmp_path / "train.py", SCRIPT.replace(">=3.10", ">=3.12"))
    write(tmp_path / "old" / "pyproject.toml", PYPROJECT.replace(">=3.10", "<3.11"))
    write(tmp_path / "environment.yml", "dependencies: [python=3.12]\n")
    for given_value in ("train.py", "old", "environment.yml"):
        with pytest.raises(RuntimeEnvironmentError, match=r"but the caller runs 3\.11"):
            spec_of(given_value, tmp_path)
    write(tmp_path / "train.py", SCRIPT.replace(">=3.10", ">=3.11.7,<3.12"))
    assert spec_of("train.py", tmp_path).python == PYTHON


# ── conda ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conda_file_gets_the_callers_python_and_no_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "more.txt", "rich\n")
    text = "name: mine\nprefix: /home/me/mine\nchannels: [conda-forge]\ndependencies:\n"
    text += "- python >=3.9\n- python-dateutil\n- numpy=2\n- pip:\n  - six\n  - -r more.txt\n"
    write(tmp_path / "environment.yml", text)
    spec = spec_of("environment.yml", tmp_path)
    assert (spec.kind, spec.python) == (EnvironmentKind.CONDA, PYTHON)
    assert yaml.safe_load(dict(spec.files)["environment.yml"]) == {
        "channels": ["conda-forge"],
        "dependencies": ["python=3.11", "python-dateutil", "numpy=2", {"pip": ["six", "rich"]}],
    }
    write(tmp_path / "environment.yml", "- a\n- b\n")
    assert "no conda environment" in refusal("environment.yml", tmp_path)


def test_a_named_conda_environment_is_another_one_when_something_is_installed_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".conda").mkdir()
    prefix = tmp_path / "envs" / "ml"
    (tmp_path / ".conda" / "environments.txt").write_text(f"/opt/conda\n{prefix}\n")
    (prefix / "conda-meta").mkdir(parents=True)
    before = conda_environment("ml", python=PYTHON).spec
    assert (before.kind, before.name, before.python) == (EnvironmentKind.CONDA_NAMED, "ml", PYTHON)
    assert conda_environment("ml", python=PYTHON).spec == before
    (prefix / "conda-meta" / "numpy-2.1.0-0.json").touch()
    after = conda_environment("ml", python=PYTHON).spec
    assert after.digest != before.digest
    assert conda_environment(str(prefix), python=PYTHON).spec.installed == after.installed
    assert conda_environment("unknown", python=PYTHON).spec.installed == ""
    assert conda_environment("ml", python=PYTHON, here=False).spec.installed == ""
    with pytest.raises(ConfigurationError, match="job_conda_env"):
        conda_environment(" ", python=PYTHON)


# ── what is missing ─────────────────────────────────────────────────────────────────────────────────────────


def test_imports_that_no_requirement_provides_are_found(tmp_path: Path, site: Path) -> None:
    install(site, "outer", files=("outer_module.py",), requires="inner[deep]")
    install(site, "inner", files=("inner_module.py",), requires='deepest; extra == "deep"')
    install(site, "deepest", files=("deepest_module.py",))
    install(site, "apart", files=("apart_module.py",))
    third_party = {
        name: {name} for name in ("outer_module", "inner_module", "deepest_module", "apart_module")
    }

    def missing(*requirements: str) -> list[str]:
        return missing_requirements(spec_of(list(requirements), tmp_path), third_party)

    assert missing("outer") == ["apart_module"]
    assert missing("inner") == ["apart_module", "deepest_module", "outer_module"]
    assert missing("outer", "APART>=1") == []
    assert missing("not-installed-here") == []  # it may need any of them
    assert missing_requirements(spec_of(["outer"], tmp_path), {"unknown_x": {"unknown_x"}}) == []
    assert missing_requirements(spec_of(None, tmp_path, here=True), third_party) == []
    assert closure([]) == (set(), True)


# ── the spec ────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_dependencies_are_one_environment_whatever_the_indexs_password(tmp_path: Path) -> None:
    def digest(*lines: str) -> str:
        return resolve_dependencies(
            list(lines), third_party={}, here=False, python=PYTHON, base_folder=tmp_path
        ).digest

    line = "--index-url https://me:{}@host/simple"
    assert digest(line.format("monday"), "six") == digest(line.format("tuesday"), "six")
    assert digest("six") != digest("six>1")
    assert digest(line.format("x"), "six") != digest(line.format("x").replace("host", "other"), "six")


@given(user=st.text("ab%1:", min_size=1), password=st.text("xy%@:1", min_size=1))
def test_credentials_in_urls_are_masked_wherever_they_stand(user: str, password: str) -> None:
    text = f"'--index-url=https://{user}:{password}@host/a@b' and git+ssh://{user}@host/c"
    assert mask_credentials(text) == "'--index-url=https://***@host/a@b' and git+ssh://***@host/c"

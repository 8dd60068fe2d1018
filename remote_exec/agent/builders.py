"""How an environment is built: by uv from requirements or from a lock, by conda from its file.

A builder fills a folder that nobody else knows of yet and returns the interpreter in it; locks, ready marks
and what happens after a crash belong to `environments`. It runs in the thread that called it and keeps no
state. Whatever a tool says is masked (credentials in URLs) before anyone sees it.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path

from ..model.environment import EnvironmentKind, EnvironmentSpec, mask_credentials
from ..model.errors import RuntimeEnvironmentError
from ..model.record import record
from .interpreters import find, probe, versions
from .tools import find_uv

LAST_LINES = 20  # of a failed tool's output, kept with the error
MAX_LINE_BYTES = 4096
POLL_SECONDS = 0.1  # how soon a cancel is seen
GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL

# What the caller's shell points elsewhere with: none of it is about the environment that is being built.
_MISLEADING = (
    "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET",
    "UV_PREFIX", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY",
)  # fmt: skip
# pip's settings, which uv does not read: uv's names for them, the newest last, and what parts several values
_PIP_SETTINGS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("PIP_INDEX_URL", ("UV_INDEX_URL", "UV_DEFAULT_INDEX"), " "),
    ("PIP_EXTRA_INDEX_URL", ("UV_EXTRA_INDEX_URL", "UV_INDEX"), " "),
    ("PIP_FIND_LINKS", ("UV_FIND_LINKS",), ","),
    ("PIP_NO_INDEX", ("UV_NO_INDEX",), " "),
    ("PIP_CERT", ("SSL_CERT_FILE",), " "),
)
_QUIET = {
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_INSTALL_BIN": "0",  # nothing into ~/.local/bin
    "NO_COLOR": "1",
    "CONDA_ALWAYS_YES": "1",  # `conda env create` has no --yes before 24.4
    "MAMBA_NO_BANNER": "1",
}
# The last line of what it prints is what is read: activation scripts may print, too.
_TELL_ACTIVATED = "import json, os, sys; print(); print(json.dumps([sys.executable, dict(os.environ)]))"
_OF_THE_RUN = frozenset({"PATH", "PWD", "OLDPWD", "SHLVL", "_"})  # a shell's own; PATH is built anew
_NETWORK_SIGNS = (
    "error sending request",
    "dns error",
    "Connection refused",
    "timed out",
    "Network connectivity is disabled",
    "Failed to fetch",
)


@record(kw_only=True)
class Order:
    """What a builder is given.

    Attributes:
        spec: the environment wanted.
        folder: an empty folder, the environment's own for good.
        uv: the uv executable, where a client has named one.
        tools: the folder of those that clients have brought, if there is one.
        pythons: interpreters that this host's clients run; one of them may have the version wanted.
        environ: the environment variables that tools start from.
        wheel_blob: digest -> file of a wheel that travelled with the call.
        on_line: told each line of the tools' output.
        cancelled: asked ten times a second.
        held: a descriptor whose lock says that the folder is in use. Tools inherit it, so that the folder of
            a killed builder is not wiped under a tool that still writes.
    """

    spec: EnvironmentSpec
    folder: Path
    uv: Path | None
    tools: Path | None
    pythons: Sequence[Path]
    environ: Mapping[str, str]
    wheel_blob: Callable[[str], Path]
    on_line: Callable[[str], None]
    cancelled: Callable[[], bool]
    held: int


def build(order: Order) -> Path:
    """Build what is ordered and return its interpreter.

    Raises:
        RuntimeEnvironmentError: a tool failed or is missing, or this host has no such Python.
        concurrent.futures.CancelledError: `cancelled` said so; the tools are gone.
    """
    return _BUILDERS[order.spec.kind](order)


def tool_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that uv runs with: the user's indexes, cache, proxies; nothing misleading."""
    cleaned = {name: value for name, value in environ.items() if name not in _MISLEADING}
    for pip_name, uv_names, separator in _PIP_SETTINGS:
        if cleaned.get(pip_name) and not any(name in cleaned for name in uv_names):
            cleaned[uv_names[-1]] = separator.join(cleaned[pip_name].split())
    return {**cleaned, **_QUIET}


# ── uv ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _build_requirements(order: Order) -> Path:
    python = _new_venv(order)
    spec = order.spec
    wheels = list(_wheel_lines(order))
    if not spec.requirements and not wheels:
        return python
    lines = [line for line in spec.requirements if line not in ("--pre", "--require-hashes")]
    argv = [*_uv(order), "pip", "install", "--python", str(python), "--requirement", "-"]
    if "--pre" in spec.requirements:
        argv += ["--prerelease", "allow"]
    if "--require-hashes" in spec.requirements:
        argv += ["--require-hashes"]
    if spec.constraints:
        constraints = order.folder / "constraints.txt"
        _write(constraints, "\n".join(spec.constraints) + "\n")
        argv += ["--constraint", str(constraints)]
    # Requirements enter by stdin: an index's password belongs neither in argv nor in a file. Bytecode is left
    # to the first import: compiling all of numpy and pandas takes 6.6 s here, compiling what `import pandas`
    # loads 2.0 s.
    run_tool(
        order, argv, what="uv could not install the requirements", stdin="\n".join([*lines, *wheels]) + "\n"
    )
    for leftover in (order.folder / "constraints.txt", order.folder / "wheels"):
        _discard(leftover)
    return python


def _build_project(order: Order) -> Path:
    python = _new_venv(order)
    project = order.folder / "project"
    project.mkdir(mode=0o700)
    for name, text in order.spec.files:
        _write(project / name, text)
    argv = [*_uv(order), "sync", "--frozen", "--no-dev", "--no-install-project", "--no-install-workspace"]
    argv += ["--python", str(python)]
    run_tool(
        order,
        argv,
        what="uv could not install what uv.lock says",
        folder=project,
        # uv leaves the lock of a project that it has installed among the temporary files
        variables={"UV_PROJECT_ENVIRONMENT": str(order.folder / "venv"), "TMPDIR": str(project)},
    )
    _discard(project)  # its files may name an index with a password
    return python


def _new_venv(order: Order) -> Path:
    version = order.spec.python
    found = find(version, order.environ, order.pythons)
    if found is None:
        _bring_python(order, version)
    argv = [*_uv(order), "venv", "--quiet", "--no-project"]
    argv += ["--python", str(found.path) if found else version]
    run_tool(order, [*argv, str(order.folder / "venv")], what="uv could not make a virtual environment")
    return order.folder / "venv" / "bin" / "python"


def _bring_python(order: Order, version: str) -> None:
    order.on_line(f"there is no Python {version} on this host; asking uv for one")
    here = ", ".join(versions(order.environ, order.pythons)) or "none"
    what = f"this host has no Python {version} and uv could not bring it (found here: {here})"
    hint = f"install Python {version} on the host, or call from one that it has"
    try:
        uv = _uv(order)
    except RuntimeEnvironmentError as error:
        what = f"this host has no Python {version} (found here: {here}), and no uv to bring it"
        raise RuntimeEnvironmentError(what, hint=hint) from error
    run_tool(order, [*uv, "python", "install", version], what=what, hint=hint)


def _uv(order: Order) -> list[str]:
    if order.uv is not None and os.access(order.uv, os.X_OK):
        uv = order.uv
    elif found := find_uv(order.tools, order.environ):
        uv = found.path
    else:
        raise RuntimeEnvironmentError(
            "this host has no uv, which builds environments", hint="install it there: pip install uv"
        )
    return [str(uv), "--color", "never"]


def _wheel_lines(order: Order) -> Iterator[str]:
    """Link the wheels into the folder under their names, and yield a requirement line for each."""
    folder = order.folder / "wheels"
    hashed = any("--hash" in line or line == "--require-hashes" for line in order.spec.requirements)
    for name, digest in order.spec.wheels:
        if os.path.basename(name) != name or not name.endswith(".whl"):
            raise RuntimeEnvironmentError(f"{name!r} is not the file name of a wheel")
        folder.mkdir(mode=0o700, exist_ok=True)
        _link(order.wheel_blob(digest), folder / name)
        algorithm, _, hexadecimal = digest.partition(":")
        yield (folder / name).as_uri() + (f" --hash={algorithm}:{hexadecimal}" if hashed else "")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # stays readable if the cache drops the blob meanwhile
    except OSError:  # another file system
        os.symlink(source, target)


# ── conda ───────────────────────────────────────────────────────────────────────────────────────────────────


def _build_conda(order: Order) -> Path:
    tool = _conda(order.environ)
    prefix = order.folder / "conda"
    source = order.folder / "environment.yml"
    _write(source, dict(order.spec.files)["environment.yml"])
    if os.path.basename(tool) == "micromamba":
        argv = [tool, "create", "--yes", "--prefix", str(prefix), "--file", str(source)]
    else:
        argv = [tool, "env", "create", "--prefix", str(prefix), "--file", str(source)]
    run_tool(order, argv, what=f"{os.path.basename(tool)} could not build environment.yml")
    _discard(source)
    python = prefix / "bin" / "python"
    found = probe(python)
    if isinstance(found, str):
        raise RuntimeEnvironmentError(f"the environment of environment.yml has no Python: {found}")
    if found.version != order.spec.python:
        raise RuntimeEnvironmentError(
            f"environment.yml brings Python {found.version}, but the caller runs {order.spec.python}",
            hint=f"name it in environment.yml: python={order.spec.python}",
        )
    return python


def activate_conda(name: str, environ: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """Return the interpreter of a conda environment of this host, and the variables that its activation sets.

    Args:
        name: its name, or its prefix; with a prefix and no conda here, nothing is activated.
        environ: the environment variables that conda starts from.

    Raises:
        RuntimeEnvironmentError: there is no conda, or no such environment.
    """
    by_prefix = os.sep in name
    prefix = Path(name).expanduser()
    if by_prefix and _find_conda(environ) is None:
        return prefix / "bin" / "python", {"CONDA_PREFIX": str(prefix)}
    tool = _conda(environ)
    argv = [tool, "run", "-p" if by_prefix else "-n", str(prefix) if by_prefix else name, "python"]
    argv += ["-c", _TELL_ACTIVATED]
    cleaned = tool_environ(environ)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=cleaned,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeEnvironmentError(
            f"{tool} could not be asked for environment {name!r}: {error}"
        ) from error
    if done.returncode != 0 or not done.stdout.strip():
        raise RuntimeEnvironmentError(
            f"{os.path.basename(tool)} has no usable environment {name!r} on this host",
            output="\n".join(mask_credentials(done.stderr).splitlines()[-LAST_LINES:]),
            hint=f"{os.path.basename(tool)} env list",
        )
    executable, active = json.loads(done.stdout.strip().splitlines()[-1])
    variables = {
        key: value for key, value in active.items() if cleaned.get(key) != value and key not in _OF_THE_RUN
    }
    return Path(executable), {"CONDA_PREFIX": str(Path(executable).parent.parent), **variables}


def _find_conda(environ: Mapping[str, str]) -> str | None:
    for name in ("micromamba", "mamba", "conda"):
        if found := shutil.which(name, path=environ.get("PATH", os.defpath)):
            return found
    given = environ.get("CONDA_EXE")
    return given if given and os.access(given, os.X_OK) else None


def _conda(environ: Mapping[str, str]) -> str:
    if found := _find_conda(environ):
        return found
    raise RuntimeEnvironmentError(
        "a conda environment was asked for, but this host has no micromamba, mamba or conda on its PATH",
        hint="install micromamba there, or give `dependencies` as requirements, which uv installs",
    )


# ── running a tool ──────────────────────────────────────────────────────────────────────────────────────────


def run_tool(
    order: Order,
    argv: Sequence[str],
    *,
    what: str,
    stdin: str = "",
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    hint: str = "",
) -> None:
    """Run a tool in a process group of its own; `what` says what its failure means, `hint` what to do then.

    Raises:
        RuntimeEnvironmentError: it failed; `output` holds its last lines.
        concurrent.futures.CancelledError: `order.cancelled` said so; the whole group is gone.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder or order.folder,
            env={**tool_environ(order.environ), **(variables or {})},
            start_new_session=True,
            pass_fds=(order.held,),
        )
    except OSError as error:
        raise RuntimeEnvironmentError(
            f"{what}: {argv[0]} cannot be run: {error.strerror or error}"
        ) from error
    with process:
        try:
            _feed(process, stdin)
            for line in _lines(process, order.cancelled):
                last.append(line)
                order.on_line(line)
            _await(process, order.cancelled)
        except BaseException:
            _end_group(process)
            raise
    if process.returncode != 0:
        output = "\n".join(last)
        raise RuntimeEnvironmentError(what, output=output, hint=hint or _hint(output))


def _feed(process: subprocess.Popen[bytes], text: str) -> None:
    assert process.stdin is not None  # noqa: S101 (asked for above)
    try:
        # Requirements are smaller than a pipe's buffer as a rule; if not, the tool reads them all before it
        # speaks.
        process.stdin.write(text.encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it failed before it read; its status and its words tell why


def _lines(process: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> Iterator[str]:
    """Yield the output's lines until it ends, or the process has ended and only a child keeps the pipe."""
    assert process.stdout is not None  # noqa: S101 (asked for above)
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if cancelled():
                raise CancelledError
            if not selector.select(POLL_SECONDS):
                if process.poll() is not None:
                    break
                continue
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            *whole, pending = (pending + data).replace(b"\r", b"\n").split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                whole, pending = [*whole, pending], b""
            yield from (_clean(line) for line in whole if line.strip())
    if pending.strip():
        yield _clean(pending)


def _clean(line: bytes) -> str:
    return mask_credentials(line[:MAX_LINE_BYTES].decode(errors="replace").rstrip())


def _await(process: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> None:
    while True:
        try:
            process.wait(POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if cancelled():
                raise CancelledError from None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process and all that it started, then kill what is left."""
    deadline = time.monotonic() + GRACE_SECONDS
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        try:
            process.wait(max(deadline - time.monotonic(), 0.05))
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _hint(output: str) -> str:
    if any(sign in output for sign in _NETWORK_SIGNS):
        return "the index was not reached: check the host's network and its settings (UV_DEFAULT_INDEX)"
    if "was not found in the package registry" in output:
        return "a name is misspelt, or its index is not configured on the host"
    if "No solution found" in output and re.search(r"==[^\s,]*\d\+[a-z]", output):
        return "a local version (2.1+cpu) is only where it was built: name that index, or ask for 2.1"
    if "No solution found" in output:
        return "the requirements contradict each other or this Python: relax the one named above"
    return ""


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_BUILDERS: dict[EnvironmentKind, Callable[[Order], Path]] = {
    EnvironmentKind.UV: _build_requirements,
    EnvironmentKind.PROJECT: _build_project,
    EnvironmentKind.CONDA: _build_conda,
}

"""A notebook's cells on other hosts: its modules and environment come along, and a broken link does not end a cell."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hosts.docker_engine import IMAGE, DockerEngine, docker_engine  # noqa: F401 - a fixture
from hosts.fixtures import ssh_client  # noqa: F401 - a fixture
from hosts.letting_go import let_go
from hosts.link import Link
from hosts.sshd import SshClient, SshServer
from kernels import Notebook, opened
from leftovers import LINUX, Leftovers, until_empty
from test_cell_widgets import model

INDEX_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_", "PIP_")
HERE = sys.prefix
FREE_SECONDS = 20.0  # far more than it takes, and far less than what is interrupted would


@pytest.fixture(scope="module", params=["ssh", pytest.param("docker", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, session_home: Path) -> Iterator[Link | None]:
    """A host that the configuration calls `gpu`: one behind a link, or a container."""
    index = {name: value for name, value in os.environ.items() if name.startswith(INDEX_VARIABLES)}
    settings: dict[str, object] = {}
    link: Link | None = None
    with ExitStack() as stack:
        if request.param == "ssh":
            client: SshClient = request.getfixturevalue("ssh_client")
            folder = Path(tempfile.mkdtemp(prefix="h-", dir=client.folder.parent))
            server = stack.enter_context(SshServer(folder, client.public_key))
            link = stack.enter_context(Link(server.address, server.port))
            client.add("gpu", server, via=link)
            stack.callback(client.forget, "gpu")
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("PATH", client.environ()["PATH"])
            settings = {"host": "gpu"}
        else:
            engine: DockerEngine = request.getfixturevalue("docker_engine")
            named = {Path(word) for value in index.values() for word in value.split()}
            read = {path for path in named if path.is_absolute() and path.exists()}
            mounted = [f"{path}:{path}:ro" for path in sorted(read) if read.isdisjoint(path.parents)]
            settings = {"engine": engine.url, "image": IMAGE, "network_mode": "host", "volumes": mounted}
        file = session_home / "config" / "remote_exec" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        told = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
        variables = ", ".join(f"{name} = {value!r}" for name, value in index.items())
        file.write_text(
            f'[instances.gpu]\nbackend = "{request.param}"\n{told}environment_variables = {{ {variables} }}\n'
        )
        stack.callback(file.unlink)
        yield link
        let_go("gpu")


@pytest.fixture(scope="module", autouse=LINUX)
def nothing_left_by_fixtures(nothing_left_by_fixtures: Leftovers, place: Link | None) -> Leftovers:
    """Servers and engines behind a place are the session's."""
    nothing_left_by_fixtures.forgive()
    return nothing_left_by_fixtures


@pytest.fixture(scope="module")
def far(
    place: Link | None, clients_loop: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    """A notebook whose cells run there, its session begun."""
    folder = tmp_path_factory.mktemp("far")
    (folder / "rates.py").write_text("def rate(): return 1\n")
    (folder / "shapes").mkdir()
    (folder / "shapes" / "__init__.py").write_text(
        "class Square:\n    def __init__(self, side): self.side = side\n"
    )
    with opened(folder, started=False) as notebook:
        notebook.run("import numpy as np\nfrom shapes import Square\nmine = Square(3)\nvalues = np.arange(4)")
        notebook.run("%%remote gpu\npass")
        yield notebook


def test_names_arrays_modules_and_displays_work_there(far: Notebook) -> None:
    ran = far.run(
        f"%%remote gpu\nimport sys\nprint(sys.prefix != {HERE!r})\nvalues += mine.side\n"
        "display({'text/plain': 'shown'}, raw=True)\nyours = Square(values.sum())\nyours.side"
    )
    assert (ran.stdout, ran.displays[0]["text/plain"]) == ("True\n", "shown")
    assert ran.value["text/plain"] == "np.int64(18)"
    assert far.value("(values.tolist(), type(yours) is Square)") == ([3, 4, 5, 6], True)


def test_a_module_of_the_remote_cell_alone_travels_and_is_reloaded_as_here(far: Notebook) -> None:
    assert far.run("%%remote gpu\nimport rates\nrates.rate()").value["text/plain"] == "1"
    file = Path(far.value("rates.__file__"))
    file.write_text("import more\n\ndef rate(): return more.MORE\n")
    (file.parent / "more.py").write_text("MORE = 'more'\n")
    assert far.run("%%remote gpu\nrates.rate()").value["text/plain"] == "1"
    far.run("import importlib\nimportlib.reload(rates)")
    assert far.run("%%remote gpu\nrates.rate()").value["text/plain"] == "'more'"
    # a part of a package that was written after the package had been imported there
    (file.parent / "shapes" / "late.py").write_text("LATE = True\n")
    assert far.run("%%remote gpu\nfrom shapes.late import LATE\nLATE").value["text/plain"] == "True"


def test_an_error_in_a_module_shows_its_file_here(far: Notebook) -> None:
    file = Path(far.value("__import__('os').getcwd()")) / "broken.py"
    file.write_text("def divide(a):\n    return a / 0\n")
    ran = far.run("%%remote gpu\nimport broken\nbroken.divide(1)", fails=True)
    assert ran.ename == "ZeroDivisionError"
    assert f"File {file}:2" in ran.traceback
    assert "return a / 0" in ran.traceback


def test_what_is_not_installed_there_is_named_with_what_helps(far: Notebook) -> None:
    far.run("import tqdm\nfrom tqdm import tqdm as bar")
    ran = far.run("%%remote gpu\ntqdm.__version__", fails=True)
    assert "'tqdm'" in ran.traceback
    assert "--dependencies" in ran.traceback
    assert "jupyter_ext" not in ran.traceback
    ran = far.run("%%remote gpu\nimport tqdm as other", fails=True)
    assert ran.ename == "ModuleNotFoundError"
    assert "--dependencies" in ran.traceback
    far.run("def version(): return tqdm.__version__")
    ran = far.run("%%remote gpu\nversion()", fails=True)
    assert "tqdm stays here: tqdm needs 'tqdm'" in ran.traceback
    # a cell that may use it, but does not, goes on without
    ran = far.run("%%remote gpu\nbar if not values.size else globals().keys() >= {'values'}")
    assert ran.value["text/plain"] == "True"
    far.run("%remote restart")
    assert far.run("%%remote gpu\ntqdm.__version__ == bar.__module__").value["text/plain"] == "False"


def test_a_cell_there_can_be_stopped(far: Notebook) -> None:
    ran = far.run(
        "%%remote gpu\nkept = 1\nprint('begun', flush=True)\nwhile True: pass", at="begun", fails=True
    )
    assert (ran.ename, far.value("kept")) == ("KeyboardInterrupt", 1)
    assert far.run("%%remote gpu\nkept + 1").value["text/plain"] == "2"


def test_a_detached_cell_runs_there_with_copies_of_what_it_uses(far: Notebook) -> None:
    far.run(
        "%%remote gpu --detach --name far-cell\nimport sys, rates\nmine.side += 1\nprint('printed')\n"
        "(sys.prefix, rates.rate.__name__, mine)"
    )
    far.run("job = _\nprefix, name, square = job.result()")
    assert far.value(f"prefix != {HERE!r}, name, square.side - mine.side, type(square) is Square") == (
        True,
        "rate",
        1,
        True,
    )
    assert far.value("job.logs()") == "printed\n"
    assert "gpu" in far.run("job").outputs[0]["data"]["text/plain"]


@pytest.mark.parametrize("place", ["ssh"], indirect=True)
def test_a_cell_goes_on_when_the_link_breaks(far: Notebook, place: Link) -> None:
    go = Path(far.value("__import__('os').getcwd()")) / "go"

    def cut() -> None:
        place.cut()
        go.touch()

    ran = far.run(
        "%%remote gpu\nimport os, time\nprint('begun', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('ended')\nvalues[0] = 99\nvalues[0]",
        at="begun",
        do=cut,
    )
    assert ran.stdout == "begun\nended\n"
    assert (ran.value["text/plain"], far.value("int(values[0])")) == ("np.int64(99)", 99)


@pytest.mark.parametrize("place", ["ssh"], indirect=True)
def test_stop_while_a_large_module_is_sent(far: Notebook, place: Link) -> None:
    notebook = far
    notebook.run(
        "import os\ntext = os.urandom(3_000_000).hex()\nbegins = text[:9]\n"
        "_ = open('heavy.py', 'w').write(f'TEXT = {text!r}')"
    )
    source = "%%remote gpu\nimport heavy\nheavy.TEXT[:9] == begins"
    notebook.run("%%remote gpu\nbefore = 1")
    place.rate(400_000)  # a minute and more
    presser = threading.Thread(target=_stop_when_sent, args=(notebook, place, place.passed() + 200_000))
    presser.start()
    ran = notebook.run(source, fails=True)
    presser.join()
    place.rate(0)
    assert ran.ename == "KeyboardInterrupt"
    assert ran.seconds < FREE_SECONDS
    assert notebook.run(source).value["text/plain"] == "True"
    assert notebook.value("before") == 1


@pytest.mark.parametrize("place", ["ssh"], indirect=True)
def test_stop_while_large_names_travel(far: Notebook, place: Link) -> None:
    notebook = far
    notebook.run("import os\nimport numpy as np\nstays = np.frombuffer(os.urandom(6_000_000), 'u1').copy()")
    notebook.run("%%remote gpu\nimport os\nmine, known = os.getpid(), int(stays[0])")
    notebook.run("changes = np.frombuffer(os.urandom(4_000_000), 'u1').copy()\ndef ask(): return 1")
    source = "%%remote gpu\nran = ask()\nint(changes.sum()), known == int(stays[0]), mine == os.getpid()"
    place.rate(400_000)  # a minute and more
    for _ in range(2):  # the second waits behind what is left of the first one's chunk
        ran = notebook.run(source, at="sending", fails=True)
        assert ran.ename == "KeyboardInterrupt"
        assert ran.seconds < FREE_SECONDS
    assert notebook.value("'ran' in globals()") is False
    notebook.run("changes[:] = 1")  # nothing of what it was may be there
    place.rate(0)
    passed_before = place.passed()
    assert notebook.run(source).value["text/plain"] == "(4000000, True, True)"
    assert place.passed() - passed_before < 6_000_000  # `stays` has not gone again
    assert notebook.value("ran") == 1


@pytest.mark.parametrize("place", ["ssh"], indirect=True)
def test_stop_while_changes_travel_home(far: Notebook, place: Link) -> None:
    notebook = far
    notebook.run("import os\nimport numpy as np\ngrown = np.zeros(2_000_000, 'u1')\nalso = [grown]")
    notebook.run("%%remote gpu\nimport os\nimport numpy as np\nmine = os.getpid()\ngrown, also")
    place.rate(30_000_000)  # some seconds
    ran = notebook.run(
        "%%remote gpu\ndef random(size): return np.frombuffer(os.urandom(size), 'u1').copy()\n"
        "made, small, frozen = random(8_000_000), 'small', bytes(5_000_000)\ngrown[:] = random(len(grown))",
        at="receiving",
        fails=True,
    )
    place.rate(0)
    assert ran.ename == "KeyboardInterrupt"
    assert "the cell had ended" in ran.traceback
    assert "interrupted" in ran.lines.splitlines()[-1]
    assert ran.seconds < FREE_SECONDS
    assert notebook.value("small") == "small"
    assert "since its way home was interrupted" in notebook.value("repr(made)")
    ran = notebook.run("%%remote gpu\nmine == os.getpid(), len(made), bool(grown.all()), also[0] is grown")
    assert ran.value["text/plain"] == "(True, 8000000, False, True)"
    notebook.run("made, frozen, grown = made.fetch(), frozen.fetch(), grown.fetch()")
    assert notebook.value("len(made), frozen == bytes(5_000_000), bool(grown.any())") == (
        8_000_000,
        True,
        True,
    )
    assert notebook.value("made.flags.writeable")


def test_large_changes_come_home_behind_many_displays(far: Notebook) -> None:
    ran = far.run(
        "%%remote gpu\nfor number in range(60): display(number)\nlarge = bytearray(b'x' * 20_000_000)",
    )
    assert len(ran.displays) == 60
    assert far.value("len(large), large.count(b'x')") == (20_000_000, 20_000_000)


def _stop_when_sent(notebook: Notebook, place: Link, passed: int) -> None:
    until_empty(lambda: place.passed() < passed, FREE_SECONDS)
    notebook.interrupt()


def test_what_a_widget_calls_brings_its_modules(far: Notebook) -> None:
    notebook = far
    folder = Path(notebook.value("__import__('os').getcwd()"))
    notebook.run("def clicked(button): clicks.append('early')\nclicks = []")
    notebook.run("import ipywidgets")
    notebook.run("%remote restart")
    ran = notebook.run(
        "%%remote gpu\nbutton = ipywidgets.Button()\nbutton.on_click(lambda one: clicked(one))\nclicks"
    )
    (folder / "pressing.py").write_text("from pressed import LATE\n")
    (folder / "pressed.py").write_text("LATE = 'late'\n")
    notebook.run("def clicked(button):\n    import pressing\n    clicks.append(pressing.LATE)")
    heard = notebook.say(model(ran, "ButtonModel"), {"method": "custom", "content": {"event": "click"}})
    assert not heard.outputs
    assert notebook.value("clicks") == ["late"]
    notebook.run("del button")


def test_a_session_there_and_one_here_share_the_names(far: Notebook) -> None:
    notebook = far
    notebook.run("shared, other = [1], {}\nimport os, sys")
    notebook.run("%%remote gpu --keep\nstays = [os.getpid()]\nplace = sys.prefix")
    ran = notebook.run("%%remote local\nshared.append(2)\nother['here'] = shared\nsys.prefix != place")
    assert ran.value["text/plain"] == "True"
    assert "stays has stayed on gpu" in notebook.run("%%remote local\nstays", fails=True).traceback
    ran = notebook.run(
        "%%remote gpu\nshared.append(3)\nstays == [os.getpid()], other['here'] is shared, shared"
    )
    assert ran.value["text/plain"] == "(True, True, [1, 2, 3])"
    assert notebook.value("other['here'] is shared, shared") == (True, [1, 2, 3])
    assert notebook.run("%%remote local\nshared").value["text/plain"] == "[1, 2, 3]"
    notebook.run("stays = stays.fetch()\n%remote restart local")


def test_dependencies_need_not_name_what_cells_themselves_need(far: Notebook) -> None:
    ran = far.run(
        "%%remote gpu --dependencies six,tqdm\nimport six, tqdm\n"
        "display({'text/plain': 'shown'}, raw=True)\nsix.PY3"
    )
    assert (ran.displays[0]["text/plain"], ran.value["text/plain"]) == ("shown", "True")

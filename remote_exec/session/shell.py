"""IPython at the far end of a session: it runs cells as the notebook's own does, and tells home what is displayed."""

from __future__ import annotations

import builtins
import contextlib
import getpass
import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any, NamedTuple

from ..model.errors import RuntimeEnvironmentError
from ..worker import context
from ..worker.streams import Talk
from . import comms, settings
from .interrupts import Interrupts
from .names import is_of_python
from .progress_lines import ProgressLines
from .settings import Settings
from .tasks import Tasks

FORMER_VALUES = ("_", "__", "___")
INLINE = "module://matplotlib_inline.backend_inline"


class Display(NamedTuple):
    """Something displayed: to be published in the notebook."""

    data: dict[str, Any]
    metadata: dict[str, Any]
    transient: dict[str, Any]
    update: bool


class Clear(NamedTuple):
    """The cell's output is to be cleared."""

    wait: bool


class Ask(NamedTuple):
    """The cell waits for a line from the user."""

    prompt: str
    password: bool


class Stopped(NamedTuple):
    """What is answered where the user has pressed stop instead."""


class Ran(NamedTuple):
    """How a cell ended there: its last expression's value, or what it raised; and what is displayed after the value."""

    has_value: bool = False
    value: Any = None
    error: BaseException | None = None
    late: tuple[Display, ...] = ()


class Shell:
    """The one IPython of this process.

    Args:
        main: the module that is its namespace.
        in_kernel: whether the notebook is one, and no terminal.
        interrupts: keeps them from what must not be cut off.

    Raises:
        RuntimeEnvironmentError: there is no IPython here.
    """

    def __init__(self, main: ModuleType, *, in_kernel: bool, interrupts: Interrupts) -> None:
        if importlib.util.find_spec("matplotlib_inline") is not None:
            os.environ.setdefault("MPLBACKEND", INLINE)
        self._talk: Talk | None = None
        self._interrupts = interrupts
        self._filename = self._parent = self._folder = ""
        self._value: list[Any] = []
        self._late: list[Display] | None = None  # as soon as the cell has a value and is over
        self._left = 0  # statements of the cell, behind the one that runs
        self._tasks = Tasks()
        self._in_kernel = in_kernel
        self._ip = self._make(main, in_kernel)
        for name in FORMER_VALUES:  # the notebook's come with the cells that name them
            main.__dict__.pop(name, None)
        self._hidden = frozenset(
            {*vars(main), *self._ip.user_ns_hidden, "get_ipython", "In", "Out"}
        ).difference(FORMER_VALUES)
        builtins.input = self._input
        getpass.getpass = self._getpass
        out, err = ProgressLines(sys.stdout), ProgressLines(sys.stderr)
        out.other, err.other = err, out
        self._printed = (out, err)
        sys.stdout, sys.stderr = out, err
        if in_kernel:
            comms.install(self.tell, lambda: self._parent)

    def _make(self, main: ModuleType, in_kernel: bool) -> Any:
        try:
            shell: Any = importlib.import_module("IPython.core.interactiveshell")
            publishing: Any = importlib.import_module("IPython.core.displaypub")
            config: Any = importlib.import_module("traitlets.config")
        except ModuleNotFoundError as error:
            raise RuntimeEnvironmentError(
                f"a notebook's cells need IPython where they run, and {error.name} is missing there",
                hint="add 'ipython' to the dependencies",
            ) from error
        outer = self

        class Publisher(publishing.DisplayPublisher):  # type: ignore[misc]
            def publish(
                self,
                data: Any,
                metadata: Any = None,
                *,
                transient: Any = None,
                update: bool = False,
                **_: Any,
            ) -> None:
                outer.tell(Display(dict(data), dict(metadata or {}), dict(transient or {}), update))

            def clear_output(self, wait: bool = False) -> None:
                outer.tell(Clear(wait))

        class Interactive(shell.InteractiveShell):  # type: ignore[misc]
            def showtraceback(self, *args: Any, running_compiled_code: bool = False, **keywords: Any) -> None:
                # the cell's own is shown at home
                if not running_compiled_code and not isinstance(sys.exc_info()[1], SystemExit):
                    shell.InteractiveShell.showtraceback(self, *args, **keywords)

            def showsyntaxerror(self, *args: Any, **keywords: Any) -> None:
                if not keywords.get("running_compiled_code", len(args) > 1 and args[1]):
                    return
                shell.InteractiveShell.showsyntaxerror(self, *args, **keywords)

            async def run_ast_nodes(self, nodelist: Any, *args: Any, **keywords: Any) -> Any:
                outer._left = len(nodelist)
                return await shell.InteractiveShell.run_ast_nodes(self, nodelist, *args, **keywords)

            async def run_code(self, *args: Any, **keywords: Any) -> Any:
                outer._left -= 1
                return await shell.InteractiveShell.run_code(self, *args, **keywords)

            def ask_exit(self) -> None:
                print("a remote cell does not end its session: %remote restart does", file=sys.stderr)

            def enable_gui(self, gui: Any = None) -> None:
                pass  # there is no screen

        wanted = config.Config()
        warnings.filterwarnings("ignore", "To exit: use", UserWarning)  # home says so
        wanted.HistoryManager.enabled = False
        wanted.HistoryManager.hist_file = ":memory:"
        wanted.InteractiveShell.cache_size = 0
        if in_kernel:  # libraries tell by these names that there is a page to show things on
            wanted.IPKernelApp.parent = "remote_exec"
            Interactive.__name__ = Interactive.__qualname__ = "ZMQInteractiveShell"
            with contextlib.suppress(ImportError):
                importlib.import_module("ipykernel.zmqshell")
        with tempfile.TemporaryDirectory(prefix="ipython-") as folder:  # nobody's profile, and none is kept
            made = Interactive.instance(
                config=wanted, user_module=main, user_ns=vars(main), ipython_dir=folder
            )
        shell.InteractiveShell._instance = made
        made.display_pub = Publisher(parent=made)
        made.loop_runner = self._tasks.finish
        made.events.register("post_execute", self._hold_back)
        made.compile.get_code_name = lambda *_: self._filename  # pyright: ignore[reportUnknownLambdaType]
        made.displayhook.__class__ = _recording(made.displayhook.__class__, self._take_value)
        return made

    def is_own(self, name: str) -> bool:
        """Whether a name of the namespace is this end's alone."""
        return name in self._hidden or is_of_python(name)

    def in_loop(self) -> contextlib.AbstractContextManager[None]:
        """Run code as a kernel does: inside of an event loop, which is the same for all cells."""
        return self._tasks.running() if self._in_kernel else contextlib.nullcontext()

    def run(self, source: str, filename: str, number: int) -> Ran:
        """Run a cell, while somebody listens."""
        ip = self._ip
        self._filename = filename
        self._value.clear()
        ip.execution_count = number
        try:
            with self._interrupts.let(), self.in_loop():
                result = ip.run_cell(source, store_history=False, silent=False, cell_id=None)
            error = self._tasks.as_interrupt(result.error_before_exec or result.error_in_exec)
        except KeyboardInterrupt as interrupt:  # just before it began, or just after
            error = interrupt
        finally:
            late, self._late = self._late or [], None
        value = self._value[-1] if self._value else None
        return Ran(bool(self._value), value, error, tuple(late))

    def _take_value(self, value: Any) -> None:
        """The last statement's value is shown at home, those of others (``ast_node_interactivity``) here and now."""
        if self._left > 0:
            data, metadata = self._ip.display_formatter.format(value)
            self.tell(Display(data, metadata, {}, update=False))
        else:
            self._value.append(value)

    def _hold_back(self) -> None:
        """Figures that are left over when a cell ends are displayed below its value, which home displays."""
        if self._value:
            self._late = []

    @contextlib.contextmanager
    def heard_by(self, talk: Talk, told: Settings) -> Generator[None, None, None]:
        """What is shown meanwhile goes home, and questions too; settings hold from now on."""
        settings.apply(told, self._ip)
        self._enter(told.folder)
        self._talk, self._parent = talk, told.parent
        try:
            yield
        finally:
            self._settle()
            self._talk = None
            self._folder = _working_folder()

    def _enter(self, folder: str) -> None:
        """Be where the last cell was; or where the notebook is, if that has changed since."""
        for wanted in (folder, self._folder):
            if wanted and os.path.isdir(wanted):
                os.chdir(wanted)
                return

    def tell(self, told: object) -> None:
        """Tell home something, if anybody listens."""
        talk = self._talk
        if talk is None:
            return
        self._settle()
        with self._interrupts.kept_off():
            if isinstance(told, Display) and not told.update:
                context.log_shown(str(told.data.get("text/plain", "")))
            if self._late is not None and isinstance(told, Display):
                self._late.append(told)
            else:
                talk.tell(told)

    def _settle(self) -> None:
        for stream in self._printed:
            stream.settle()

    def shown(self, value: Any) -> dict[str, Any]:
        """Return how a value looks: MIME type -> data."""
        data, _ = self._ip.display_formatter.format(value)
        return dict(data)

    def _input(self, prompt: object = "") -> str:
        return self._ask(Ask(str(prompt), password=False))

    def _getpass(self, prompt: str = "Password: ", stream: object = None, **_: object) -> str:
        return self._ask(Ask(prompt, password=True))

    def _ask(self, question: Ask) -> str:
        if self._talk is None:
            raise EOFError("nobody is there to be asked")
        self._settle()
        with self._interrupts.kept_off():
            answer = self._talk.ask(question)
        if isinstance(answer, Stopped):
            raise KeyboardInterrupt("Interrupted by user")
        if answer is None:
            raise EOFError("the notebook's front end does not ask")
        return str(answer)


def _recording(base: type[Any], take: Callable[[Any], None]) -> type[Any]:
    """Return a display hook's class that hands values over instead of showing them."""

    class Recording(base):  # type: ignore[misc]
        def __call__(self, result: Any = None) -> None:
            if result is not None:
                take(result)

    return Recording


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""

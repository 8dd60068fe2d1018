"""IPython at the far end of a session: it runs cells as the notebook's own does, and tells home what is displayed."""

from __future__ import annotations

import builtins
import getpass
import importlib
import importlib.util
import os
import tempfile
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from ..model.errors import RuntimeEnvironmentError
from ..worker.streams import Talk

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


class Ran(NamedTuple):
    """How a cell ended there: its last expression's value, or what it raised."""

    has_value: bool
    value: Any
    error: BaseException | None


class Shell:
    """The one IPython of this process.

    Args:
        main: the module that is its namespace.

    Raises:
        RuntimeEnvironmentError: there is no IPython here.
    """

    def __init__(self, main: ModuleType) -> None:
        if importlib.util.find_spec("matplotlib_inline") is not None:
            os.environ.setdefault("MPLBACKEND", INLINE)
        self._talk: Talk | None = None
        self._filename = ""
        self._value: list[Any] = []
        self._ip = self._make(main)
        self._hidden = frozenset(vars(main)) | frozenset(self._ip.user_ns_hidden) | {"get_ipython", "In", "Out"}
        builtins.input = self._input
        getpass.getpass = self._getpass

    def _make(self, main: ModuleType) -> Any:
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
                self, data: Any, metadata: Any = None, *, transient: Any = None, update: bool = False, **_: Any
            ) -> None:
                outer.tell(Display(dict(data), dict(metadata or {}), dict(transient or {}), update))

            def clear_output(self, wait: bool = False) -> None:
                outer.tell(Clear(wait))

        class Interactive(shell.InteractiveShell):  # type: ignore[misc]
            def showtraceback(self, *_: Any, **__: Any) -> None:
                pass  # home shows it

            def showsyntaxerror(self, *_: Any, **__: Any) -> None:
                pass

            def ask_exit(self) -> None:
                pass

        settings = config.Config()
        settings.HistoryManager.enabled = False
        settings.HistoryManager.hist_file = ":memory:"
        settings.InteractiveShell.display_pub_class = Publisher
        settings.InteractiveShell.cache_size = 0
        Interactive.display_pub_class.default_value = Publisher
        with tempfile.TemporaryDirectory(prefix="ipython-") as folder:  # it begins with nobody's profile, and keeps none
            made = Interactive.instance(
                config=settings, user_module=main, user_ns=vars(main), ipython_dir=folder
            )
        shell.InteractiveShell._instance = made
        made.display_pub = Publisher(parent=made)
        made.compile.get_code_name = lambda raw, transformed, number: outer._filename
        made.displayhook.__class__ = _recording(made.displayhook.__class__, self._value)
        return made

    def is_own(self, name: str) -> bool:
        """Whether a name of the namespace is this end's alone."""
        return name in self._hidden or (name.startswith("_") and (name.strip("_") == "" or name[1:].isdigit() or name.startswith(("__", "_i", "_dh", "_oh", "_ih", "_exit_code"))))

    def run(self, source: str, filename: str, number: int, settings: Mapping[str, Any], talk: Talk) -> Ran:
        """Run a cell."""
        ip = self._ip
        self._talk, self._filename = talk, filename
        self._value.clear()
        ip.execution_count = number
        ip.ast_node_interactivity = settings.get("ast_node_interactivity", "last_expr")
        try:
            result = ip.run_cell(source, store_history=False, silent=False, cell_id=None)
        finally:
            self._talk = None
        error = result.error_before_exec or result.error_in_exec
        return Ran(bool(self._value), self._value[-1] if self._value else None, error)

    def tell(self, told: object) -> None:
        """Tell home something, if a cell runs."""
        if self._talk is not None:
            self._talk.tell(told)

    def shown(self, value: Any) -> dict[str, Any]:
        """Return how a value looks: MIME type -> data."""
        data, _ = self._ip.display_formatter.format(value)
        return dict(data)

    def _input(self, prompt: object = "") -> str:
        return self._ask(Ask(str(prompt), password=False))

    def _getpass(self, prompt: str = "Password: ", stream: object = None) -> str:
        return self._ask(Ask(prompt, password=True))

    def _ask(self, question: Ask) -> str:
        if self._talk is None:
            raise EOFError("nobody is there to be asked")
        answer = self._talk.ask(question)
        if answer is None:
            raise EOFError("the notebook's front end does not ask")
        return str(answer)


def _recording(base: type[Any], values: list[Any]) -> type[Any]:
    """Return a display hook's class that keeps values instead of showing them."""

    class Recording(base):
        def __call__(self, result: Any = None) -> None:
            if result is not None:
                values.append(result)

    return Recording



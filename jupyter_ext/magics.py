"""`%%remote` and `%remote`: the commands of a notebook."""

from __future__ import annotations

import sys
import threading
from tokenize import TokenError
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Integer, Unicode

from remote_exec.config import load_config
from remote_exec.errors import MaxRuntimeExceeded, RemoteExecError
from remote_exec.options import Options
from remote_exec.options.option_set import Origin
from remote_exec.session.far_end import Cell, Outcome
from remote_exec.session.reach import closure
from remote_exec.session.scoping import FUTURES, compiled, names_of

from .line import Line, LineError, parse
from .session import MOST_BYTES, raised
from .sessions import Sessions
from .timeouts import Limit, interrupted_after
from .tracebacks import frames_are
from .transform import COMMENT, as_comment

if TYPE_CHECKING:
    from .job import DetachedCell
    from .parts import Parts


@magics_class
class RemoteMagics(Magics):
    """Cells that run somewhere bigger."""

    instance_type = Unicode(
        "", help="Where `%%remote` runs cells unless they say; a name from the configuration."
    ).tag(config=True)
    most_bytes = Integer(
        MOST_BYTES, help="Bytes beyond which a value stays there, and a name stands for it here."
    ).tag(config=True)

    shell: Any

    def __init__(self, shell: Any, **keywords: Any) -> None:
        super().__init__(shell, **keywords)
        self.sessions = Sessions(shell)
        self.parts: Parts | None = None

    @no_var_expand
    @cell_magic
    def remote(self, line: str, cell: str) -> Any:
        """Run this cell in the notebook's worker: `%%remote [INSTANCE_TYPE] [flags]`; see `%%remote --help`.

        What the cell uses goes there by itself, what it changes comes back, and what it shows is shown here. How
        values are shown is set here: display options of pandas, print options of numpy, figure formats, IPython's
        precision; so are filters of warnings and levels of logging, and log records are handled here. Environment
        variables, matplotlib's rcParams, global random state and other state of modules are each end's own, and live
        on there between remote cells. The working directory there is the one that was entered last, here or there.
        """
        try:
            asked = parse(line)
        except LineError as error:
            if not str(error):
                return None
            raise UsageError(str(error)) from None
        if _is_in_subshell():
            raise UsageError(
                "%%remote: a kernel's subshell cannot run it: the notebook's namespace is that of its main shell"
            )
        limit = Limit()
        try:
            code = self._analysed(_at_its_lines(self.shell, line, cell), asked)
            if asked.detach:
                return self._detach(code, asked)
            with interrupted_after(asked.timeout, limit):
                outcome, value = self._run(code, asked)
        except (RemoteExecError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and limit.passed:
                raise frames_are(_too_long(asked.timeout, str(error)), None) from None
            raise frames_are(error, None) from None
        for name, reason in outcome.cannot.items():
            if not name.startswith("_remote_exec"):
                print(f"{name} stays there: {reason}", file=sys.stderr)
        if outcome.interrupted and limit.passed:
            raise frames_are(_too_long(asked.timeout), None)
        failure = raised(outcome)
        if failure is not None:
            self._show_late(outcome)
            raise frames_are(failure, failure.__traceback__)
        shown = None if _is_quiet(self.shell, cell) else value
        if not outcome.late:
            return shown
        sys.displayhook(shown)
        self._show_late(outcome)
        return None

    @no_var_expand
    @line_magic("remote")  # type: ignore[arg-type]  # it takes a name as well
    def remote_command(self, line: str) -> Any:
        """Ask or command: `%remote status|use|jobs|logs|cancel|result|attach|pools|config|restart|help`."""
        from .commands import run

        try:
            return run(self, line)
        except RemoteExecError as error:
            raise frames_are(error, None) from None

    def _show_late(self, outcome: Outcome) -> None:
        for one in outcome.late:
            self.shell.display_pub.publish(
                data=one.data, metadata=one.metadata, transient=one.transient, update=one.update
            )

    def _analysed(self, source: str, asked: Line) -> _Code:
        """Find out which names a cell may use, and which it certainly does."""
        shell = self.shell
        transformed = shell.transform_cell(source)
        number = self._number()
        filename = shell.compile.cache(transformed, number, raw_code=source)
        try:
            codes = compiled(transformed, filename, shell.compile.flags)
        except SyntaxError as error:
            raise frames_are(error, None) from None
        names = closure(names_of(*codes, transform=shell.transform_cell), shell.user_ns, shell.transform_cell)
        used, deleted = names.could_read(shell.user_ns), names.deletes & shell.user_ns.keys()
        if asked.sent is not None:
            used, deleted = used & frozenset(asked.sent), deleted & frozenset(asked.sent)
        cell = Cell(source, filename, number, (), self.most_bytes, asked.keep, asked.back, name=asked.name)
        return _Code(cell, codes, used, names.certain & used, deleted)

    def _run(self, code: _Code, asked: Line) -> tuple[Outcome, Any]:
        for each in code.codes:  # what a cell imports from `__future__` holds in all that follow
            self.shell.compile.flags |= each.co_flags & FUTURES
        session = self.sessions.of(self._on_default(asked.options))
        return session.run(
            code.cell, code.used, deletes=code.deletes, required=code.certain, codes=code.codes
        )

    def _detach(self, code: _Code, asked: Line) -> DetachedCell:
        from .job import detach

        options = self._on_default(asked.options)
        return detach(
            self.shell,
            code.cell,
            code.used | code.deletes,
            required=code.certain,
            codes=code.codes,
            options=options,
        )

    def _number(self) -> int:
        """Return the execution count of the cell that runs."""
        numbers: dict[str, int] = self.shell.compile._filename_map
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename in numbers:
                return numbers[frame.f_code.co_filename]
            frame = frame.f_back
        return int(self.shell.execution_count)

    def _on_default(self, options: Options) -> Options:
        if "instance_type" in options:
            return options
        default = self.instance_type or load_config().resolve(options).instance_type
        return options.over(Options.from_keywords(Origin.CALL, instance_type=default))

    @property
    def default_instance_type(self) -> str:
        """Where cells run that do not say; of several, the first that can be had."""
        return self.instance_type or ", ".join(load_config().resolve(Options()).instance_type)

    def show(self, found: Any) -> None:
        """Display a future or detached cell; it goes on updating in a notebook."""
        self.shell.display_formatter.ipython_display_formatter(found)

    def cell_ended(self, _result: object) -> None:
        """After each cell: the sessions hold on to nothing that the notebook has let go."""
        self.sessions.prune()

    def close(self) -> None:
        """Give the workers back."""
        self.sessions.close()


class _Code(NamedTuple):
    """A cell, compiled; the names that it may use, those that it certainly does, and those that it may delete."""

    cell: Cell
    codes: list[CodeType]
    used: frozenset[str]
    certain: frozenset[str]
    deletes: frozenset[str]


def _is_in_subshell() -> bool:
    """Whether this thread runs beside the one that runs cells; ipykernel has such since version 7."""
    subshells: Any = sys.modules.get("ipykernel.subshell")
    return subshells is not None and isinstance(threading.current_thread(), subshells.SubshellThread)


def _too_long(seconds: float | None, more: str = "") -> MaxRuntimeExceeded:
    told = f"the cell was stopped after {seconds:g} s, its --timeout"
    return MaxRuntimeExceeded(f"{told}; {more}" if more else told)


def _at_its_lines(shell: Any, line: str, cell: str) -> str:
    """Return the cell with its magic's line as a comment: its line numbers are the editor's."""
    if cell.lstrip().startswith("%%"):
        return cell
    whole = shell.history_manager.input_hist_raw[-1].rstrip() if shell.history_manager is not None else ""
    above = whole.removesuffix(cell.rstrip())
    others = above.splitlines()[:-1] if above != whole else []  # other magics, such as %%time
    return "".join(f"{COMMENT}{text}\n" for text in others) + f"{as_comment(line)}\n{cell}"


def _is_quiet(shell: Any, cell: str) -> bool:
    """Whether a cell's last expression is not to be shown: it ends in a semicolon."""
    try:
        return bool(shell.displayhook.semicolon_at_end_of_expression(cell))
    except (TokenError, SyntaxError):  # it is no Python alone
        return cell.rstrip().endswith(";")

"""`%%remote` and `%remote`: the commands of a notebook."""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, no_var_expand
from traitlets import Integer, Unicode

from remote_exec.errors import RemoteExecError
from remote_exec.options import Options
from remote_exec.options.option_set import Origin
from remote_exec.session.far_end import Cell, Outcome
from remote_exec.session.reach import closure
from remote_exec.session.scoping import compiled, names_of

from .line import Line, LineError, parse
from .session import MOST_BYTES, Session, Shown, raised


@magics_class
class RemoteMagics(Magics):
    """Cells that run somewhere bigger."""

    instance_type = Unicode("", help="Where `%%remote` runs cells unless they say; a name from the configuration.").tag(
        config=True
    )
    most_bytes = Integer(
        MOST_BYTES, help="Bytes beyond which a value stays there, and a name stands for it here."
    ).tag(config=True)

    def __init__(self, shell: Any, **keywords: Any) -> None:
        super().__init__(shell, **keywords)
        self._session: Session | None = None

    @no_var_expand
    @cell_magic
    def remote(self, line: str, cell: str) -> Any:
        """Run this cell in the notebook's worker: `%%remote [INSTANCE_TYPE] [flags]`; see `%%remote --help`."""
        try:
            asked = parse(line)
        except LineError as error:
            if not str(error):
                return None
            raise UsageError(str(error)) from None
        source = _at_its_lines(line, cell)
        outcome, value = self._run(source, asked)
        for name, reason in outcome.cannot.items():
            if not name.startswith("_remote_exec"):
                print(f"{name} stays there: {reason}", file=sys.stderr)
        error = raised(outcome)
        if error is not None:
            self._dress(error)
            raise error
        if outcome.shown is not None:
            value = Shown(outcome.shown, "it cannot travel")
        return None if _is_quiet(cell) else value

    def _run(self, source: str, asked: Line) -> tuple[Outcome, Any]:
        shell = self.shell
        transformed = shell.transform_cell(source)
        number = self._number()
        filename = shell.compile.cache(transformed, number, raw_code=source)
        try:
            codes = compiled(transformed, filename, shell.compile.flags)
        except SyntaxError as error:
            raise self._told_syntax_error(error) from None
        names = closure(names_of(*codes, transform=shell.transform_cell), shell.user_ns, shell.transform_cell)
        used = names.could_read(shell.user_ns)
        if asked.sent is not None:
            used &= frozenset(asked.sent)
        cell = Cell(source, filename, number, (), self.most_bytes, asked.keep, asked.back)
        return self._session_for(asked.options).run(cell, used, required=names.certain & used)

    def _number(self) -> int:
        """Return the execution count of the cell that runs."""
        numbers: dict[str, int] = self.shell.compile._filename_map
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename in numbers:
                return numbers[frame.f_code.co_filename]
            frame = frame.f_back
        return int(self.shell.execution_count)

    def _told_syntax_error(self, error: SyntaxError) -> Exception:
        """Return what IPython shows as it shows a syntax error of a cell, and not one of ours while we ran."""
        lines = self.shell.SyntaxTB.structured_traceback(SyntaxError, error, [])
        told = type("SyntaxError", (Exception,), {"_render_traceback_": lambda _self: lines})(str(error))
        return told

    def _session_for(self, options: Options) -> Session:
        if "instance_type" not in options and self.instance_type:
            options = options.over(Options.from_keywords(Origin.CALL, instance_type=self.instance_type))
        if self._session is None or self._session.options != options:
            if self._session is not None:
                self._session.close()
            self._session = Session(self.shell, options)
        return self._session

    def _dress(self, error: BaseException) -> None:
        """Have IPython show the cell's frames alone."""
        shell = self.shell
        traceback = error.__traceback__

        def render() -> list[str]:
            return list(shell.InteractiveTB.structured_traceback(type(error), error, traceback))

        error._render_traceback_ = render  # type: ignore[attr-defined]

    def close(self) -> None:
        """Give the worker back."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _at_its_lines(line: str, cell: str) -> str:
    """Return the cell with its magic's line as a comment: its line numbers are the editor's."""
    return cell if cell.lstrip().startswith("%%") else f"# %%remote {line}\n{cell}"


def _is_quiet(cell: str) -> bool:
    """Whether a cell's last expression is not to be shown: it ends in a semicolon."""
    import io
    import tokenize

    last = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(cell).readline):
            if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
                last = token.string
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return cell.rstrip().endswith(";")
    return last == ";"


_ = RemoteExecError

"""How things look in a notebook: tables and facts as HTML with text beside it, and displays of the library's objects.

`remote_exec` knows nothing of IPython: its classes are told to IPython's formatters here. All text is escaped, colours
are the theme's, with others behind them for where a notebook is read without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from remote_exec.cli.show import fact_lines, plain_table

Bundle = dict[str, str]

QUIET = "var(--jp-ui-font-color2, #616161)"
MUTED = f"color: {QUIET}"
FONT = "font-family: var(--jp-ui-font-family, sans-serif); font-size: var(--jp-ui-font-size1, 13px)"
_HEADING = f"text-align: left; white-space: nowrap; {MUTED}"
WAITS = "var(--jp-warn-color1, #b26500)"
RUNS = "var(--jp-brand-color1, #1976d2)"
GOOD = "var(--jp-success-color1, #2e7d32)"
BAD = "var(--jp-error-color1, #d32f2f)"
COLOURS: Mapping[str, str] = {
    "queued": WAITS,
    "running": RUNS,
    "succeeded": GOOD,
    "failed": BAD,
    "cancelled": QUIET,
}
MARKS: Mapping[str, str] = {"queued": "◌", "running": "●", "succeeded": "✓", "failed": "✗", "cancelled": "⊘"}


class Table:
    """Rows under their headings. A notebook shows it as HTML, a terminal as text.

    Attributes:
        rows: what the rows are about, as plain data; those that a program goes on with.
    """

    def __init__(
        self,
        columns: Sequence[str],
        cells: Sequence[Sequence[str]],
        *,
        rows: Sequence[Any] = (),
        none: str = "",
        note: str = "",
    ) -> None:
        self.rows = list(rows)
        self._columns = columns
        self._cells = cells
        self._none = none
        self._note = note

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __repr__(self) -> str:
        if not self._cells:
            return self._none
        return plain_table(self._columns, self._cells) + (f"\n{self._note}" if self._note else "")

    def _repr_html_(self) -> str:
        if not self._cells:
            return paragraph(self._none)
        head = "".join(
            f'<th scope="col" style="text-align: left">{escape(name)}</th>' for name in self._columns
        )
        body = "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in self._cells)
        note = paragraph(self._note) if self._note else ""
        return f'<table style="{FONT}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}'


class Facts:
    """One thing's facts, and further parts: sections of facts with lines of text below them.

    Attributes:
        data: what it is about, as plain data.
    """

    def __init__(
        self,
        facts: Mapping[str, str],
        *,
        parts: Iterable[tuple[Mapping[str, str], Sequence[str]]] = (),
        data: Any = None,
    ) -> None:
        self.data = data
        self._parts = [(facts, ()), *parts]

    def __repr__(self) -> str:
        return "\n\n".join(
            "\n".join(
                [
                    *(f"{heading}{line}" for heading, line in fact_lines(facts)),
                    *(f"  {line}" for line in lines),
                ]
            )
            for facts, lines in self._parts
        )

    def _repr_html_(self) -> str:
        return "".join(facts_html(facts) + preformatted(lines) for facts, lines in self._parts)


def facts_html(facts: Mapping[str, str]) -> str:
    """Return facts as a table of two columns; empty ones are left out."""
    rows = "".join(
        f'<tr><th scope="row" style="{_HEADING}">{escape(name)}</th>{_cell(value)}</tr>'
        for name, value in facts.items()
        if value
    )
    return f'<table style="{FONT}"><tbody>{rows}</tbody></table>'


def preformatted(lines: Sequence[str]) -> str:
    """Return lines as they are; nothing, where there are none."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""


def paragraph(text: str) -> str:
    """Return one sentence beside the data."""
    return f'<p style="{MUTED}; {FONT}">{escape(text)}</p>'


def state_html(state: str) -> str:
    """Return a job's state with its mark."""
    colour = COLOURS.get(state, "inherit")
    mark = f'<span aria-hidden="true">{MARKS.get(state, "")}</span>'
    return f'<span style="color: {colour}">{mark} {escape(state)}</span>'


def progress_html(bars: Iterable[Mapping[str, Any]]) -> str:
    """Return progress bars, a line each."""
    return "".join(_bar(bar) for bar in bars)


def _bar(bar: Mapping[str, Any]) -> str:
    name, done, total = escape(str(bar["desc"] or "progress")), bar["done"], bar["total"]
    rate = f" · {bar['rate']:.1f}/s" if bar["rate"] else ""
    if not total:
        return f"<div>{name} {done:g}{rate}</div>"
    share = min(1.0, done / total)
    left = f" · {(total - done) / bar['rate']:.0f} s left" if bar["rate"] and done < total else ""
    drawn = f'<progress max="1" value="{share:.4f}" aria-label="{name}"></progress>'
    return f"<div>{name} {drawn} {done:g}/{total:g}{rate}{left}</div>"


def _cell(text: str) -> str:
    shown = state_html(text) if text in COLOURS else "<br>".join(map(escape, text.splitlines()))
    return f'<td style="text-align: left; vertical-align: top">{shown}</td>'


# --- the library's objects --------------------------------------------------------------------------------------


def install(shell: Any) -> None:
    """Have a shell show the library's objects."""
    from remote_exec.session.kept import Kept

    html = shell.display_formatter.formatters["text/html"]
    for name, show in _SHOWN.items():
        module, _, cls = name.rpartition(".")
        html.for_type_by_name(module, cls, show)
    html.for_type(Kept, kept_html)


def uninstall(shell: Any) -> None:
    """Have it show them as any others."""
    from remote_exec.session.kept import Kept

    html = shell.display_formatter.formatters["text/html"]
    for key in [*_SHOWN, Kept]:
        html.pop(key, None)


def kept_html(kept: Any) -> str | None:
    """Return what stays at the far end; nothing, where it is known how that looks."""
    if kept.shown:
        return None
    from remote_exec.cli.show import size

    return facts_html(
        {
            "stays there": kept.type_name,
            "size": size(kept.size) if kept.size else "",
            "value": kept.text,
            "why": kept.reason,
        }
    )


def _executor_html(executor: Any) -> str:
    world = executor._world
    state = "shut down" if executor._shut_down else "not started" if world is None else "running"
    facts = {"executor": state, "instance type": ", ".join(executor._options.instance_type)}
    options: dict[str, str] = executor._options.shown()
    return facts_html(facts | {name: text for name, text in options.items() if name != "instance_type"})


def _instance_html(instance: Any) -> str:
    closed = instance._dispatcher.closed
    return facts_html(
        {
            "remote instance": instance._class.__name__,
            "state": "closed" if closed else "alive",
            "host": instance._host.name,
        }
    )


_SHOWN: Mapping[str, Callable[[Any], str]] = {
    "remote_exec.RemoteExecutor": _executor_html,
    "remote_exec.remote_class.RemoteInstance": _instance_html,
}

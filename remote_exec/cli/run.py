"""``remote-exec run``: a script, or one function of it, remotely."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import click

from ..options import click_options, options_from_flags
from . import script
from .show import json_option, note, print_json


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("target", metavar="FILE[:FUNCTION]")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...", type=click.UNPROCESSED)
@click.option("--dry-run", is_flag=True, help="Only list what would travel, what not and why.")
@click.option("--local", is_flag=True, help="Run it right here, in this process.")
@json_option
@click_options()
def command(
    target: str, arguments: tuple[str, ...], *, dry_run: bool, local: bool, as_json: bool, **flags: object
) -> None:
    """Run FILE as a script, or FUNCTION of it, in a worker.

    A script runs as __main__ with the arguments as they are; what it prints comes as it is printed, and its
    exit code is this command's. A function's arguments become what its annotations say, else Python literals or
    texts; NAME=VALUE goes by keyword; the repr of what it returns is printed. With --detach, the job's name is
    printed at once. Options stand before FILE.

    \b
    Examples:
      remote-exec run train.py --epochs 3
      remote-exec run train.py:fit 0.1 epochs=3 "layers=[64, 64]"
      remote-exec run --dependencies requirements.txt --memory '8 GB' train.py:fit
      remote-exec run --detach --name nightly train.py
      remote-exec run --dry-run train.py
    """
    path, name = script.parse_target(target)
    given = options_from_flags(flags)
    with_traceback = _Tracebacks(str(path.resolve()))
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    with with_traceback:
        function = script.load_function(path, name) if name else script.whole_script(path, arguments)
    if name and not (dry_run and not arguments):
        from .arguments import parse_arguments

        args, kwargs = parse_arguments(_plain(function), arguments)
    if dry_run:
        _preview(function, given, as_json=as_json)
        return
    with with_traceback:
        if local:
            value = _plain(function)(*args, **kwargs)
        else:
            remote, detached = _remote(function, given)
            if detached:
                _tell_job(remote.submit(*args, **kwargs).job, as_json=as_json)
                return
            value = remote(*args, **kwargs)
        for each in _values(value):
            _print(each, as_json=as_json)


def _tell_job(name: str, *, as_json: bool) -> None:
    print_json({"job": name}) if as_json else click.echo(name)
    note(f"hint: remote-exec logs -f {name}, or: remote-exec result {name}")


def _remote(function: Callable[..., Any], given: Any) -> tuple[Any, bool]:
    """The function as a remote one, and whether it is to be detached; flags rank above its decorator's options."""
    from ..function import RemoteFunction

    plain, decorated = _parts(function)
    options = given.over(decorated)
    return RemoteFunction(plain, options), options.detach


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return _parts(function)[0]


def _parts(function: Callable[..., Any]) -> tuple[Callable[..., Any], Any]:
    from ..function import RemoteFunction
    from ..options import Options

    if not isinstance(function, RemoteFunction):
        return function, Options()
    plain, keywords = function.__reduce__()[1]
    return plain, Options.from_keywords(**keywords)


def _preview(function: Callable[..., Any], given: Any, *, as_json: bool) -> None:
    from .preview import preview, print_preview

    plain, decorated = _parts(function)
    found = preview(plain, given.over(decorated))
    print_json(found) if as_json else print_preview(found)


def _values(value: Any) -> Iterator[Any]:
    """What is to be printed: a generator's values as they come."""
    if isinstance(value, Iterator):
        yield from value
    elif value is not None:
        yield value


def _print(value: Any, *, as_json: bool) -> None:
    import json

    if not as_json:
        click.echo(repr(value))
        return
    try:
        click.echo(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError):
        click.echo(json.dumps({"repr": repr(value)}, ensure_ascii=False))


class _Tracebacks:
    """What the user's code raises is shown as Python shows it, from their own file on; the exit code is 1."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, _cls: object, error: BaseException | None, _tb: object) -> None:
        from ..model.errors import RemoteError, RemoteExecError

        if isinstance(error, SystemExit):
            if error.code is not None and not isinstance(error.code, int):
                note(str(error.code))
            return
        if not isinstance(error, Exception) or (
            isinstance(error, RemoteExecError) and not isinstance(error, RemoteError)
        ):
            return
        note(self._text(error).rstrip())
        raise click.exceptions.Exit(1) from None

    def _text(self, error: Exception) -> str:
        import traceback

        from ..serial import failures

        remote = getattr(error, "remote", None)
        if isinstance(remote, failures.RemoteTraceback):
            frames = [frame for frame in remote.failure.frames if frame.name != script.run_as_main.__name__]
            return failures.format(replace(remote.failure, frames=tuple(frames)))
        found = error.__traceback__
        while found is not None and found.tb_frame.f_code.co_filename != self._file:
            found = found.tb_next
        return "".join(traceback.format_exception(type(error), error, found or error.__traceback__))

"""Between HTTP and `Answers`: what is asked, who may, and what is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.web import HTTPError, authenticated
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from remote_exec.errors import ConfigurationError

from .answers import Answers
from .asked import look_at_jobs, seconds_of
from .messages import Problem, Shell
from .page import Gone, Page, Pulse, Threads, to_json
from .problems import NotPossible, problem_of

RESOURCE = "jupyter_ext"  # what authorizers know it by
TERMINALS = "terminals"  # and Jupyter's own
LOOK_FIELDS = ("states", "search", "host", "notebook", "group", "first", "count")


class Handler(APIHandler):
    """What all have in common."""

    auth_resource = RESOURCE
    _track_activity = False  # a panel that is open keeps no idle server alive

    def initialize(self, answers: Answers, threads: Threads, keep_seconds: float) -> None:
        """Take what the extension hands to each."""
        self.answers = answers
        self.threads = threads
        self.keep_seconds = keep_seconds

    async def tell(self, work: Callable[..., Any], *arguments: Any, status: int = 200) -> None:
        """Answer with what a function returns that is called in a thread."""
        value = await self.threads(lambda: to_json(work(*arguments)))
        self.set_status(status)
        self.finish(value)

    def of(self, name: str) -> str:
        """Return an argument of the request's query; empty where it is not there."""
        return str(self.get_query_argument(name, ""))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tell an error as a `Problem`."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        problem = problem_of(error) if error is not None else Problem("the request failed", "", status_code)
        self.set_status(problem.status)
        self.finish(to_json(problem))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is a mistake of ours with its traceback, all else in a line."""
        if value is not None and not isinstance(value, HTTPError) and problem_of(value).status != 500:
            self.log.info("%s %s: %s", self.request.method, self.request.path, value)
        else:
            super().log_exception(typ, value, tb)


class JobsHandler(Handler):
    """A window of the list."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with `Jobs`."""
        look = look_at_jobs({name: self.of(name) for name in LOOK_FIELDS if self.of(name)})

        def work() -> Any:
            self.answers.agents.ready()
            return self.answers.agents.board.window(look)

        await self.tell(work)


class JobHandler(Handler):
    """One job."""

    @authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Answer with `JobDetail`."""
        await self.tell(self.answers.job, name, self.of("host"))


class LogsHandler(Handler):
    """What a job printed."""

    @authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Answer with a `LogPiece`, or with all of it as a file."""
        if not self.of("download"):
            await self.tell(self.answers.logs, name, self.of("host"), self.of("from"))
            return
        pieces = self.answers.whole_log(name, self.of("host"))
        piece = await self.threads(next, pieces, None)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        self.set_header(
            "Content-Disposition",
            f"attachment; filename=\"{plain}.log\"; filename*=UTF-8''{quote(name + '.log', safe='')}",
        )
        page: Any = self
        while piece is not None:
            page.write(piece)
            await self.flush()
            piece = await self.threads(next, pieces, None)
        self.finish(set_content_type="text/plain; charset=utf-8")


class Action(Handler):
    """Who does something is there."""

    _track_activity = True


class CancelHandler(Action):
    """A job stopped."""

    @authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer with `Cancelled`."""
        await self.tell(self.answers.cancel, name, self.of("host"))


class CancelAllHandler(Action):
    """All stopped that runs or waits."""

    @authenticated
    @authorized
    async def post(self) -> None:
        """Answer with `CancelledAll`."""
        await self.tell(self.answers.cancel_all)


class RerunHandler(Action):
    """A job run again."""

    @authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer with `Rerun`."""
        await self.tell(self.answers.rerun, name, self.of("host"), status=201)


class ShellHandler(Action):
    """A shell where a job runs."""

    @authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer with the `Shell`."""
        if not self.settings.get("terminals_available"):
            raise NotPossible(
                "this Jupyter server has no terminals", hint="pip install jupyter_server_terminals"
            )
        user = self.current_user
        if not await ensure_async(self.authorizer.is_authorized(self, user, "write", TERMINALS)):
            raise HTTPError(403)
        command = await self.threads(self.answers.shell, name, self.of("host"))
        model = self.settings["terminal_manager"].create(shell_command=command)
        self.set_status(201)
        self.finish(to_json(Shell(model["name"])))


class KeepHandler(Action):
    """A pool kept warm."""

    @authenticated
    @authorized
    async def post(self, key: str) -> None:
        """Answer with the `Pool`."""
        seconds = seconds_of(self.request.body, self.keep_seconds)
        await self.tell(self.answers.keep, key, seconds, self.of("host"))


class ReleaseHandler(Action):
    """A pool's idle workers ended."""

    @authenticated
    @authorized
    async def post(self, key: str) -> None:
        """Answer with `Released`."""
        await self.tell(self.answers.release, key, self.of("host"))


class HostsHandler(Handler):
    """Hosts and what is warm on them."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with `Hosts`."""
        await self.tell(self.answers.hosts)


class InstanceTypesHandler(Handler):
    """What may be asked for."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with `InstanceTypes`."""
        await self.tell(self.answers.instance_types, self._folder())

    def _folder(self) -> Path:
        """Return where the notebook lies; the server's own folder where it lies in no file, or outside of that."""
        root = Path(os.path.realpath(getattr(self.contents_manager, "root_dir", "") or os.getcwd()))
        folder = Path(os.path.realpath(root / self.of("path").lstrip("/"))).parent
        if root != folder and root not in folder.parents:
            if self.of("path"):
                raise ConfigurationError("path must lie in the server's folder")
            return root
        return folder if folder.is_dir() else root


class StatusHandler(Handler):
    """How things stand."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with `Status`."""

        def work() -> Any:
            self.answers.agents.ready()
            return self.answers.status()[0]

        await self.tell(work)


class ChangesHandler(  # pyright: ignore[reportIncompatibleMethodOverride] - two bases name a parameter otherwise
    WebSocketMixin, WebSocketHandler, JupyterHandler
):
    """The websocket of one page."""

    auth_resource = RESOURCE

    def initialize(self, answers: Answers, threads: Threads, pulse: Pulse) -> None:
        """Take what the extension hands to it."""
        self.answers = answers
        self.page = Page(answers, pulse, threads, self._write)
        self.looking = contextlib.ExitStack()

    def set_default_headers(self) -> None:
        """None: it is no page."""

    def get_compression_options(self) -> Any:
        """As the server has it for its other websockets."""
        return self.settings.get("websocket_compression_options", None)

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Let in who may look."""
        user = self.current_user
        if not await ensure_async(self.authorizer.is_authorized(self, user, "read", RESOURCE)):
            raise HTTPError(403)
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """The page is there."""
        base: Any = super()
        base.open(*args, **kwargs)
        self.looking.enter_context(self.answers.agents.looking())

    def on_message(self, message: str | bytes) -> None:
        """Hear what it looks at."""
        self.page.hear(message)

    def on_close(self) -> None:
        """The page has gone."""
        self.page.close()
        self.looking.close()
        super().on_close()

    async def _write(self, text: str) -> None:
        try:
            await asyncio.ensure_future(self.write_message(text))
        except WebSocketClosedError:
            raise Gone from None

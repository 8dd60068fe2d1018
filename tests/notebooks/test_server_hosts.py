"""The server extension about another host: an account reached by a real OpenSSH server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hosts.fixtures import gpu1, ssh, ssh_client, ssh_server
from hosts.sshd import SshClient, SshServer
from hosts.user import User
from servers import Server, part, served, until

__all__ = ["gpu1", "ssh", "ssh_client", "ssh_server"]  # fixtures

SECONDS = 60.0
WAIT = """
    import time
    def wait():
        print("there", flush=True)
        time.sleep(600)
"""

pytestmark = pytest.mark.usefixtures("ssh_server")


@pytest.fixture
def user(ssh: SshClient, gpu1: SshServer) -> Iterator[User]:
    """Somebody with the instance type `gpu`."""
    user = User(ssh.folder.parent, ssh.environ())
    user.write("wait.py", WAIT)
    user.add("gpu", host="gpu1")
    yield user
    user.close()


@pytest.fixture
def server(user: User) -> Iterator[Server]:
    """A server of that user's."""
    with served(user.folder / "s", user.environ) as made:
        yield made


def test_jobs_of_a_host_that_is_connected_to_are_listed_and_cancelled(user: User, server: Server) -> None:
    assert [host["name"] for host in server.ask("hosts").value["hosts"]] == ["local"]
    user("run", "--instance-type", "gpu", "--detach", "--name", "far-one", "wait.py:wait")

    async def page() -> None:
        async with server.page() as one:
            await one.look(1, "jobs", host="gpu1")
            frame = await one.frame(1, lambda f: f["value"]["total"] == 1)
            rows = frame["value"]["jobs" if frame["type"] == "snapshot" else "changed"]
            assert [(row["name"], row["host"]) for row in rows] == [("far-one", "gpu1")]
            assert [(row["kind"], row["instance_type"]) for row in rows] == [("job", "gpu")]
            await one.look(2, "logs", host="gpu1", name="far-one")
            piece = await one.frame(2, lambda f: f["value"]["records"])
            assert piece["value"]["records"][0]["text"] == "there\n"

    asyncio.run(asyncio.wait_for(page(), SECONDS))
    host = next(one for one in server.ask("hosts").value["hosts"] if one["name"] == "gpu1")
    assert (host["state"], len(host["pools"])) == ("connected", 1)
    assert server.ask(f"jobs/{part('far-one')}").value["job"]["host"] == "gpu1"  # found without its host
    assert server.act(f"jobs/{part('far-one')}/cancel", host="gpu1").value == {"cancelled": True}
    until(lambda: server.ask("jobs/far-one", host="gpu1").value["job"]["state"] == "cancelled")
    assert server.ask("jobs/far-one", host="nowhere").status == 503


def test_host_that_does_not_answer_keeps_no_other_from_being_told(user: User, server: Server) -> None:
    user("run", "--instance-type", "gpu", "--detach", "--name", "far-two", "wait.py:wait")
    user("run", "--detach", "--name", "near", "wait.py:wait")

    async def page() -> None:
        def figures(frame: Any) -> dict[str, tuple[str, bool]]:
            return {host["name"]: (host["state"], bool(host["pools"])) for host in frame["value"]["hosts"]}

        async with server.page() as one:
            await one.look(1, "hosts")
            all_well = {"local": ("connected", True), "gpu1": ("connected", True)}
            frame = await one.frame(1, lambda f: figures(f) == all_well)
            for silent in frame["value"]["hosts"]:
                os.kill(silent["pid"], signal.SIGSTOP)
                try:
                    expected = all_well | {silent["name"]: ("not answering", True)}
                    await one.frame(1, lambda f, expected=expected: figures(f) == expected)
                    answering = {"local": "far-two", "gpu1": "near"}[silent["name"]]
                    told = await asyncio.to_thread(server.ask, f"jobs/{answering}")
                    assert told.value["job"]["name"] == answering  # found without its host
                finally:
                    os.kill(silent["pid"], signal.SIGCONT)
                await one.frame(1, lambda f: figures(f) == all_well)

    asyncio.run(asyncio.wait_for(page(), 2 * SECONDS))
    user("cancel", "far-two")
    user("cancel", "near")

"""What may be wrong on the way to a host, and what to do: for `remote-exec doctor HOST`, and for the documentation."""

from __future__ import annotations

from typing import NamedTuple


class Trouble(NamedTuple):
    """A row of the table.

    Attributes:
        check: which of the doctor's checks finds it.
        what: it, in words.
        fix: what to do; the names in braces are filled in.
        signs: what ssh says then, if it is ssh that finds it.
    """

    check: str
    what: str
    fix: str
    signs: tuple[str, ...] = ()


TROUBLES = {
    "unknown": Trouble(
        "configuration",
        "no such instance type or host",
        'add `[tool.remote_exec.instances.{name}]` with `backend = "ssh"` and `host = "…"`; see: remote-exec hosts',
    ),
    "no ssh": Trouble("ssh", "there is no `ssh` on this machine", "install OpenSSH's client"),
    "name": Trouble(
        "name",
        "its name is not known",
        "correct `host`, or give it a HostName in ~/.ssh/config; see: ssh -G {destination}",
        ("Could not resolve hostname", "Name or service not known"),
    ),
    "refused": Trouble(
        "port",
        "nothing listens at its port",
        "is sshd running there, and is `port` right? see: ssh -G {destination}",
        ("Connection refused",),
    ),
    "silent": Trouble(
        "port",
        "it does not answer",
        "is it up? does a firewall or VPN stand between?",
        ("Connection timed out", "Operation timed out", "No route to host", "Network is unreachable"),
    ),
    "stranger": Trouble(
        "port", "what listens there is no sshd", "correct `port`, or `host`; see: ssh -G {destination}"
    ),
    "host key": Trouble(
        "host key",
        "its host key is not known here, or has changed",
        "connect once by hand and compare what it shows: ssh {destination}; one that has changed for a good reason: "
        "ssh-keygen -R {hostname}",
        ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"),
    ),
    "denied": Trouble(
        "login",
        "it does not let this user in",
        "see which keys are offered: ssh -v {destination} true; a key with a passphrase needs an agent: ssh-add",
        ("Permission denied", "Too many authentication failures"),
    ),
    "hung up": Trouble(
        "login",
        "it hung up",
        "its sshd refuses this user or address, or has too many connections: see its log (journalctl -u ssh)",
        ("Connection closed by", "Connection reset by", "kex_exchange_identification"),
    ),
    "no ssh login": Trouble("login", "ssh fails", "try by hand: ssh -v {destination} true"),
    "shell": Trouble(
        "login shell",
        "it does not run commands: it ends, or waits, before",
        "see what this prints: ssh {destination} 'echo works'; start-up files must not exit, exec or read where there "
        "is no terminal",
    ),
    "python": Trouble(
        "Python",
        "there is none of 3.10 or newer on PATH or in the usual places, and uv cannot bring one",
        "let the host reach the network, or set python-install-mirror in ~/.config/uv/uv.toml there; or install one, "
        "without root: curl -LsSf https://astral.sh/uv/install.sh | sh; ~/.local/bin/uv python install",
    ),
    "not writable": Trouble(
        "state directory",
        "it cannot be written to",
        'name another folder: `home = "…"` in [tool.remote_exec.instances.…]',
    ),
    "network disk": Trouble(
        "state directory",
        "it is on a network's file system, where locks cannot be trusted",
        'name a folder on a local disk: `home = "…"` in [tool.remote_exec.instances.…]',
    ),
    "full": Trouble(
        "disk",
        "less than 1 GB is free, or no more files can be made",
        "remote-exec cache prune --on {name}; or name a folder on a larger disk: `home`",
    ),
    "clock": Trouble(
        "clock",
        "it differs from this machine's by more than a minute: times of jobs and ages in caches are wrong",
        "have both keep time: timedatectl set-ntp true",
    ),
    "agent": Trouble(
        "agent",
        "it does not come up",
        "see the end of its log: remote-exec shell {name} -- tail {home}/agent.log",
    ),
    "forwarding": Trouble(
        "socket forwarding",
        "the agent runs, but its socket is not reached",
        "allow it in its sshd_config: AllowStreamLocalForwarding yes (and no DisableForwarding), then reload sshd",
    ),
    "uv": Trouble(
        "uv",
        "it has none, and this machine can send none for its platform",
        "install it there: curl -LsSf https://astral.sh/uv/install.sh | sh",
    ),
    "driver": Trouble(
        "GPUs",
        "there is an NVIDIA device, but NVML finds no GPU",
        "make this work: remote-exec shell {name} -- nvidia-smi; kernel module and library must be of one version",
    ),
    "fewer GPUs": Trouble(
        "GPUs",
        "it has fewer than `gpus` of the instance type asks for",
        "correct `gpus`; in a container, give it the devices; CUDA_VISIBLE_DEVICES there may hide them",
    ),
}


def table() -> str:
    """Return the documentation's table."""
    names = {"name": "HOST", "destination": "HOST", "hostname": "HOST", "home": "HOME"}
    rows = ["| check | what is wrong | what to do |", "|---|---|---|"]
    for row in TROUBLES.values():
        rows.append(f"| {row.check} | {row.what} | {row.fix.format(**names)} |".replace(" | sh", " \\| sh"))
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())

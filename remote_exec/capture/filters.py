"""What is left out of a bundle: what git ignores, what is never source, and what the user names.

Ignore files are read as git reads them (nested files, negation, anchoring, ``.git/info/exclude``; not the
user's global excludes file, so that the same tree gives the same bundle on any machine). The rules are asked
about each entry of a folder that is itself kept, from the top down; patterns need not know about parents,
which is where matching whole paths goes wrong. The patterns are translated here: with pathspec 1.1 doing it,
asked in the same way, 10 of the tests' 40 random trees came out other than git has them, and its import took
longer than to look through a thousand files. Pure but for reading the ignore files.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from functools import cached_property

from ..model.record import record

_VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS"})
_CACHES = frozenset(
    {
        "__pycache__", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis",
        ".ipynb_checkpoints", ".eggs", "node_modules",
    }
)  # fmt: skip
_SECRETS = frozenset({".env", ".netrc", ".pypirc", ".git-credentials", "id_rsa", "id_ecdsa", "id_ed25519"})
# `.env.example` and its like are made to be shared
_ENV_TEMPLATES = (".example", ".sample", ".template", ".dist")

# a folder with one of these in it is a virtual environment, venv's or conda's
ENVIRONMENT_MARKERS = frozenset({"pyvenv.cfg", "conda-meta"})
IGNORED_BY = "ignored by "
SECRET = "looks like secrets"  # noqa: S105


FileFilter = Callable[[str, list[str]], Iterable[str]]


@record(kw_only=True)
class IgnoreFile:
    """One ignore file: the folder that its patterns are relative to, and its text."""

    folder: str
    text: str
    name: str = ".gitignore"

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The file's patterns, first to last."""
        return tuple(filter(None, map(parse_rule, self.text.removeprefix("\ufeff").split("\n"))))

    @cached_property
    def _any(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{rule.regex.pattern})" for rule in self.rules) or r"(?!)", re.DOTALL)

    def verdict(self, path: str, *, is_folder: bool) -> bool | None:
        """Whether this file ignores an entry below its folder; ``None`` when no pattern speaks of it."""
        relative = path[len(self.folder) + 1 :]
        if not self._any.fullmatch(relative):
            return None
        for rule in reversed(self.rules):
            if (is_folder or not rule.folders_only) and rule.regex.fullmatch(relative):
                return not rule.negated
        return None


@record(kw_only=True)
class Rule:
    """One pattern of an ignore file."""

    regex: re.Pattern[str]
    negated: bool
    folders_only: bool


def parse_rule(line: str) -> Rule | None:
    """Read one line of an ignore file; ``None`` for blanks, comments, and patterns that match nothing."""
    line = line.removesuffix("\r")
    while line.endswith(" ") and not re.search(r"(?<!\\)(?:\\\\)*\\ $", line):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    pattern = line[1:] if negated else line
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    anchored = "/" in pattern
    body = _regex(pattern.removeprefix("/"), anchored=anchored)
    if not pattern or body is None:
        return None
    regex = re.compile(body if anchored else f"(?:.*/)?{body}", re.DOTALL)
    return Rule(regex=regex, negated=negated, folders_only=folders_only)


def _regex(pattern: str, *, anchored: bool) -> str | None:
    """git's wildmatch as a regular expression; ``None`` where git's matcher gives up."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            end = at
            while end < len(pattern) and pattern[end] == "*":
                end += 1
            # two stars mean "any folders" only as a whole path component
            whole = (at == 0 or pattern[at - 1] == "/") and (end == len(pattern) or pattern[end] == "/")
            if not (anchored and whole and end - at > 1):
                out.append("[^/]*")
            elif end == len(pattern):
                out.append(".*")
            else:
                out.append("(?:.*/)?")
                end += 1
            at = end
        elif char == "?":
            out.append("[^/]")
            at += 1
        elif char == "[":
            parsed = _bracket(pattern, at)
            if parsed is None:
                return None
            text, at = parsed
            out.append(text)
        else:
            if char == "\\":
                at += 1
                if at == len(pattern):
                    return None
            out.append(re.escape(pattern[at]))
            at += 1
    return "".join(out)


_POSIX_CLASSES = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z",
    "xdigit": "0-9a-fA-F", "blank": r"\ \t", "space": r"\s", "cntrl": r"\x00-\x1f\x7f",
    "punct": r"!-/:-@\[-`{-~", "print": r"\ -~", "graph": "!-~",
}  # fmt: skip


def _bracket(pattern: str, start: int) -> tuple[str, int] | None:
    """The set that opens at `start`, as a regular expression, and where it ends; ``None`` without end."""
    at = start + 1
    negated = pattern[at : at + 1] in {"!", "^"}
    at += negated
    items: list[str] = []
    first = True
    while True:
        char = pattern[at : at + 1]
        if not char:
            return None
        if char == "]" and not first:
            break
        first = False
        posix = re.compile(r"\[:([a-z]*):\]").match(pattern, at)
        if posix:
            if posix[1] not in _POSIX_CLASSES:
                return None
            items.append(_POSIX_CLASSES[posix[1]])
            at = posix.end()
            continue
        low, at = _set_member(pattern, at)
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in {"", "]"}:
            high, at = _set_member(pattern, at + 1)
            # git compares the low end before it meets the hyphen: a range upside down still matches that
            items.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else re.escape(low))
        else:
            items.append(re.escape(low))
    body = "".join(items)
    if not body:
        return ("[^/]" if negated else "(?!)"), at + 1
    return f"(?!/)[{'^' if negated else ''}{body}]", at + 1


def _set_member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        at += 1
    return pattern[at], at + 1


@record(kw_only=True)
class Ignores:
    """The ignore files that speak about one folder's entries, the weakest first.

    `key` stands for their whole content: decisions made under one key hold while it stays the same.
    """

    files: tuple[IgnoreFile, ...] = ()
    key: str = ""

    def inside(self, folder: str, *, has_file: bool) -> Ignores:
        """The rules for a folder's entries, given that it has an ignore file of its own, or has none."""
        return self.with_file(os.path.join(folder, ".gitignore"), folder=folder) if has_file else self

    def with_file(self, path: str, *, folder: str) -> Ignores:
        """The rules with those of one more file on top; one that cannot be read changes nothing."""
        try:
            with open(path, "rb") as file:
                text = file.read().decode("utf-8", "surrogateescape")
        except OSError:
            return self
        more = IgnoreFile(folder=folder, text=text, name=os.path.basename(path))
        seed = f"{self.key}\0{folder}\0{text}".encode("utf-8", "surrogateescape")
        return Ignores(files=(*self.files, more), key=hashlib.sha256(seed).hexdigest()[:24])

    def reason(self, path: str, *, is_folder: bool) -> str | None:
        """Why an entry, given by its absolute path, is left out; ``None`` when it is not."""
        for file in reversed(self.files):
            ignored = file.verdict(path, is_folder=is_folder)
            if ignored is not None:
                return f"{IGNORED_BY}{file.name}" if ignored else None
        return None


def ignores_above(folder: str) -> tuple[Ignores, tuple[str, ...]]:
    """The rules that a folder inherits from the git repository around it, and the files they were read from.

    A repository that ignores the folder itself (a home folder under git with ``*`` in its ignore file) has
    nothing to say about what is in it.
    """
    chain = [folder]
    while not os.path.lexists(os.path.join(chain[-1], ".git")):
        parent = os.path.dirname(chain[-1])
        if parent == chain[-1]:
            return Ignores(), ()
        chain.append(parent)
    top = chain.pop() if len(chain) > 1 else folder
    exclude = os.path.join(_git_folder(top), "info", "exclude")
    rules = Ignores().with_file(exclude, folder=top)
    read = [exclude]
    if top != folder:
        for above, below in zip([top, *reversed(chain[1:])], [*reversed(chain)], strict=True):
            path = os.path.join(above, ".gitignore")
            rules = rules.with_file(path, folder=above)
            read.append(path)
            if rules.reason(below, is_folder=True):
                return Ignores(), ()
    return rules, tuple(read)


def _git_folder(top: str) -> str:
    """Where a work tree keeps what it shares with others: ``.git``, or what a ``.git`` file points to."""
    git = os.path.join(top, ".git")
    try:
        with open(git, encoding="utf-8") as file:
            target = os.path.join(top, file.read().removeprefix("gitdir:").strip())
    except (OSError, UnicodeDecodeError):
        return git
    try:
        with open(os.path.join(target, "commondir"), encoding="utf-8") as file:
            return os.path.normpath(os.path.join(target, file.read().strip()))
    except OSError:
        return target


def default_reason(name: str, *, is_folder: bool) -> str | None:
    """Why an entry is left out whatever the ignore files say; ``None`` when it is not."""
    if is_folder:
        if name in _VERSION_CONTROL:
            return "version control"
        if name in _CACHES:
            return "a cache"
        if name.endswith((".egg-info", ".dist-info")):
            return "packaging metadata"
        return None
    if name.endswith((".pyc", ".pyo")) or name == ".DS_Store":
        return "a cache"
    if name in _SECRETS or (name.startswith(".env.") and not name.endswith(_ENV_TEMPLATES)):
        return SECRET
    # a submodule or a linked work tree has a file of that name
    return "version control" if name == ".git" else None

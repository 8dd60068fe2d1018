"""Ignore files are read as git reads them; what is never source is left out whatever they say."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from remote_exec.capture.filters import Ignores, default_reason, ignores_above, parse_rule
from remote_exec.options import CustomFileFilter

NAMES = ["a", "b", "ab", "a.c", "keep", "foo.py", ".x", "[z]", "d d", "!a", "#c", "é"]
PATTERNS = [
    "*", "!*", "a", "b/", "!a", "!keep/", "/a", "a/b", "**/a", "a/**", "a/**/b", "*.c", "?b", "[ab]",
    "[!a]*", "!foo.py", "\\!a", "keep/*", "!keep/foo.py", "foo.*", "#c", "\\#c", "d d", "a ", "a\\ ",
    "*/b", "/*", "!/keep", "[[:alpha:]]b", "**", "a**", "**b", "/**/b", ".*", "[a-", "[]a]", "[^a]b",
    "\\", "a\\", "[z]", "\\[z\\]", "/", "!", "a\r", "[a-c]", "[b-a]", "**/keep/**", "a//b", "é", "***/b",
    "[a\\]b]", "[[:nope:]]", "*[!/]b", "a/*/b",
]  # fmt: skip


def kept(folder: str, rules: Ignores) -> set[str]:
    """Every file below a folder that no ignore file speaks against."""
    found: set[str] = set()
    entries = [entry for entry in os.scandir(folder) if entry.name != ".git"]
    rules = rules.inside(folder, has_file=any(entry.name == ".gitignore" for entry in entries))
    for entry in entries:
        if rules.reason(entry.path, is_folder=entry.is_dir()):
            continue
        found |= kept(entry.path, rules) if entry.is_dir() else {entry.path}
    return found


def kept_by_git(folder: Path) -> set[str]:
    command = ["git", "-c", "core.excludesFile=/dev/null", "ls-files", "-o", "-z", "--exclude-standard", "."]
    listed = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.split(b"\0")
    return {os.path.join(folder, os.fsdecode(name)) for name in listed if name}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
@pytest.mark.parametrize("seed", range(40))
def test_ignore_files_mean_what_they_mean_to_git(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    folders = [tmp_path]
    for _ in range(25):
        here = chance.choice(folders) / chance.choice(NAMES)
        if not here.exists():
            if chance.random() < 0.4:
                here.mkdir()
                folders.append(here)
            else:
                here.touch()
    (tmp_path / ".git/info/exclude").write_text(chance.choice(PATTERNS) + "\n")
    for folder in dict.fromkeys([tmp_path, *chance.choices(folders, k=3)]):
        lines = chance.choices(PATTERNS, k=chance.randint(1, 5))
        folder.joinpath(".gitignore").write_text("\n".join(lines) + "\n", newline="")
    # git lists an embedded repository's folder only; there is none here
    assert kept(str(tmp_path), ignores_above(str(tmp_path))[0]) == kept_by_git(tmp_path)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
def test_a_folder_inside_a_repository_inherits_the_rules_above_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    work = tmp_path / "services" / "train"
    work.mkdir(parents=True)
    for name in ["a.py", "b.csv", "c.log", "d.tmp"]:
        (work / name).touch()
    (tmp_path / ".gitignore").write_text("*.csv\n/services/train/c.log\n")
    (tmp_path / "services" / ".gitignore").write_text("*.tmp\n")
    assert kept(str(work), ignores_above(str(work))[0]) == kept_by_git(work) == {str(work / "a.py")}


def test_a_repository_that_ignores_the_folder_has_nothing_to_say_about_its_content(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*\n")
    work = tmp_path / "projects" / "mine"
    work.mkdir(parents=True)
    (work / "a.py").touch()
    assert kept(str(work), ignores_above(str(work))[0]) == {str(work / "a.py")}


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_pattern(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbf*.csv\r\n")
    (tmp_path / "a.csv").touch()
    assert kept(str(tmp_path), Ignores()) == {str(tmp_path / ".gitignore")}


@pytest.mark.parametrize("line", ["", "# note", "/", "!", "[a", "a\\", "   "])
def test_lines_that_can_match_nothing_are_no_rules(line: str) -> None:
    assert parse_rule(line) is None


@pytest.mark.parametrize(
    ("name", "is_folder", "left_out"),
    [
        (".git", True, True), ("node_modules", True, True), ("x.egg-info", True, True), ("src", True, False),
        ("m.pyc", False, True), (".env", False, True), (".env.local", False, True),
        (".env.example", False, False),
        (".env", True, False), ("id_rsa", False, True), ("train.py", False, False),
        (".gitignore", False, False),
    ],
)  # fmt: skip
def test_what_is_never_source_is_left_out_by_name(name: str, is_folder: bool, left_out: bool) -> None:
    assert (default_reason(name, is_folder=is_folder) is not None) is left_out


def test_a_custom_filter_answers_like_shutil_ignore_patterns() -> None:
    names = ["a.py", "b.csv", "data", "c.CSV"]
    ours = CustomFileFilter(ignore_name_patterns=["*.csv", "data"])
    assert ours("/x", names) == shutil.ignore_patterns("*.csv", "data")("/x", names) == {"b.csv", "data"}
    assert ours.workdir == os.getcwd()

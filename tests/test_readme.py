"""README and documentation are true: their Python runs, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTATION = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    *sorted(ROOT.glob("examples/*/README.md")),
    *DOCUMENTATION,
]


def blocks(language: str, text: str = README) -> list[str]:
    """Return a page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path) -> str:
    """Run code as a script, and return what it printed."""
    script = folder / "page.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(240)  # it builds an environment, from the network
def test_the_python_of_the_readme_runs_from_top_to_bottom(tmp_path: Path) -> None:
    lines = run("\n".join(blocks("python")), tmp_path).splitlines()
    for printed in ("[0, 1, 4, 9, 16]", "5", "[8, 9]"):
        assert printed in lines
    assert re.search(r"^\['accuracy-", lines[-1])


@pytest.mark.parametrize(
    "page",
    [page for page in DOCUMENTATION if blocks("python", page.read_text(encoding="utf-8"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
@pytest.mark.timeout(240)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    for block in blocks("python", page.read_text(encoding="utf-8")):
        run(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_ci_calls_the_very_test_line_of_the_readme() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.endswith("pytest")]
    assert len(lines) == 1
    assert lines[0] in [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]


def test_the_quickstart_is_one_line_that_needs_python_alone() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if "quickstart" in line]
    assert len(lines) == 1
    assert lines[0].startswith("python3 -m venv .venv && ")
    assert (ROOT / lines[0].split()[-1]).is_file()

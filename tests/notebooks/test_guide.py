"""The guide to notebooks is true: its cells run, in order, in a real kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kernels import opened

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "notebooks.md"
CELL = re.compile(r"^```ipython\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_cells_of_the_guide_run(clients_loop: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("guide")
    (folder / "pyproject.toml").write_text('[tool.remote_exec.instances.gpu]\nbackend = "local"\n')
    with opened(folder, started=False) as notebook:
        for cell in CELL.findall(GUIDE.read_text(encoding="utf-8")):
            ran = notebook.run(cell)
            told = re.search(r"# here: (.*)", cell)
            if told is not None:
                assert ran.value["text/plain"] == told[1]
        assert notebook.value("(best, model[0][0], score == 2 * sum(math.sqrt(x) for x in range(100)))") == (
            7.0,
            1.0,
            True,
        )

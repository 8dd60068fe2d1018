"""In an IPython that runs in a terminal cells look as they do there: plain text, and nothing but text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CELLS = """\
get_ipython().run_line_magic("load_ext", "jupyter_ext")
get_ipython().run_cell("x = [1]")
get_ipython().run_cell("%%remote\\nx.append(2)\\nprint('from there')\\nx")
get_ipython().run_cell("print('here', x)")
get_ipython().run_cell("%%remote\\nx.append(3)\\n1 / 0")
get_ipython().run_cell("%%remote\\n1 +")
get_ipython().run_cell("print('still here', x)")
"""


def test_cells_in_a_terminal(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", "--no-banner", "-c", CELLS],
        cwd=tmp_path,
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path[1:])},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    lines = ran.stdout.splitlines()
    assert "from there" in lines
    assert any(line.endswith(": [1, 2]") for line in lines)
    assert "here [1, 2]" in lines
    assert "still here [1, 2, 3]" in lines
    assert ran.stdout.count("ZeroDivisionError: division by zero") == 1
    assert "----> 3 1 / 0" in lines
    assert ran.stdout.count("SyntaxError: invalid syntax") == 1
    assert "jupyter_ext" not in ran.stdout
    assert "<div" not in ran.stdout + ran.stderr

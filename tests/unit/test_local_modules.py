"""A function's local modules are found without running them; installed ones and missing ones are named."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import remote_exec
from remote_exec.capture.imports import imports_of_code, imports_of_source
from remote_exec.capture.modules import reach

HOME = str(Path(remote_exec.__file__).parents[1])
REPORT = """
import json, sys
from remote_exec.capture.modules import reach
found = reach(f)
print(json.dumps({
    "local": {name: module.file for name, module in found.local.items()},
    "third_party": {name: sorted(names) for name, names in found.third_party.items()},
    "missing": dict(found.missing),
    "loaded": sorted(sys.modules),
}))
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def run(root: Path, *arguments: str, path: list[Path] | None = None) -> dict[str, Any]:
    paths = os.pathsep.join([HOME, *map(str, path or [])])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def reached(root: Path, files: dict[str, str], *, path: list[Path] | None = None) -> dict[str, Any]:
    """What the function `f` of ``script.py`` reaches, when that is run as a script."""
    write(root, files)
    (root / "script.py").write_text(textwrap.dedent(files["script.py"]) + REPORT)
    return run(root, "script.py", path=path)


EXPLODES = "raise SystemExit('this module must not run')\n"


def test_imports_are_followed_through_modules_and_none_is_run(tmp_path: Path) -> None:
    found = reached(
        tmp_path,
        {
            "script.py": """
                def f():
                    import first
                    from pkg import part, NAME
                    import json, sklearn.linear_model
                """,
            "first.py": EXPLODES + "def g():\n    from second import x\n",
            "second.py": EXPLODES + "import importlib\nthird = importlib.import_module('third')\n",
            "third.py": EXPLODES,
            "pkg/__init__.py": EXPLODES + "NAME = 1\nfrom . import other\nfrom .sub.deep import *\n",
            "pkg/part.py": EXPLODES + "from pkg import unused\nfrom .other import y\n",
            "pkg/other.py": EXPLODES,
            "pkg/sub/__init__.py": EXPLODES,
            "pkg/sub/deep.py": EXPLODES + "from ... import too_far\n",
            "pkg/unused.py": EXPLODES,
            "unreached.py": EXPLODES,
        },
    )
    assert set(found["local"]) == {
        "first", "second", "third", "pkg", "pkg.part", "pkg.other", "pkg.sub", "pkg.sub.deep", "pkg.unused",
    }  # fmt: skip
    assert found["local"]["first"] == str(tmp_path / "first.py")
    assert found["missing"].keys() <= {"...", "sklearn"}
    assert not {"first", "pkg", "third"} & set(found["loaded"])


def test_values_in_globals_closures_defaults_and_decorators_name_their_modules(tmp_path: Path) -> None:
    files = {
        f"m_{letter}.py": "class C: pass\ndef g(): pass\ndef deco(h): return h\n" for letter in "abcdefghijk"
    }
    found = reached(
        tmp_path,
        {
            **files,
            "script.py": """
                import functools
                import m_a, m_b, m_k
                from m_c import C
                from m_d import g
                from m_e import C as InList
                from m_f import C as Base
                from m_g import g as in_partial
                from m_h import C as AsDefault
                from m_i import C as Annotated
                from m_j import C as Unused

                items = [InList()]
                bound = functools.partial(in_partial, 1)

                class Local(Base):
                    def method(self):
                        return m_b.g()

                @functools.lru_cache
                def helper():
                    return m_k.g()

                def make():
                    inner = Local()
                    def f(x: Annotated, y=AsDefault()):
                        return m_a, C, g, items, bound, inner, helper
                    return f

                f = make()
                """,
        },
    )
    assert set(found["local"]) == {f"m_{letter}" for letter in "abcdefghik"}
    assert found["missing"] == {}


def test_what_a_function_imports_is_not_the_global_of_that_name(tmp_path: Path) -> None:
    found = reached(
        tmp_path,
        {
            "m_a.py": "class C: pass\n",
            "m_b.py": "",
            "script.py": """
                from m_a import C as m_b
                def f():
                    import m_b
                    return m_b
                """,
        },
    )
    assert set(found["local"]) == {"m_b"}


def test_a_function_of_a_local_module_brings_that_module(tmp_path: Path) -> None:
    found = reached(
        tmp_path,
        {
            "script.py": "from mine.train import f\n",
            "mine/__init__.py": "",
            "mine/train.py": "from mine import losses\nimport numpy.linalg\ndef f(): pass\n",
            "mine/losses.py": "",
        },
    )
    assert set(found["local"]) == {"mine", "mine.train", "mine.losses"}
    assert "numpy.linalg" in found["third_party"]["numpy"]


def test_a_module_run_with_m_reaches_its_own_package_by_relative_imports(tmp_path: Path) -> None:
    main = "from . import near\ndef f():\n    from .sub import lazy\n    return near\n"
    write(
        tmp_path,
        {"pkg/__init__.py": "", "pkg/job.py": main + REPORT, "pkg/near.py": "", "pkg/sub/__init__.py": "",
         "pkg/sub/lazy.py": ""},
    )  # fmt: skip
    found = run(tmp_path, "-m", "pkg.job")
    assert set(found["local"]) == {"pkg", "pkg.near", "pkg.sub", "pkg.sub.lazy"}


def test_namespace_packages_and_folders_on_the_path_are_local_but_installed_portions_are_not(
    tmp_path: Path,
) -> None:
    site = tmp_path / "env" / "site-packages"
    write(tmp_path, {"one/space/mine.py": "", "two/space/inner/__init__.py": "", "two/space/inner/x.py": ""})
    write(site, {"space/installed.py": EXPLODES, "lib/__init__.py": EXPLODES, "lib/sub.py": EXPLODES})
    script = "def f():\n    import space.mine, space.inner.x, space.installed\n    from lib import sub\n"
    found = reached(tmp_path, {"script.py": script}, path=[tmp_path / "one", tmp_path / "two", site])
    assert found["local"] == {
        "space": None,
        "space.mine": str(tmp_path / "one/space/mine.py"),
        "space.inner": str(tmp_path / "two/space/inner/__init__.py"),
        "space.inner.x": str(tmp_path / "two/space/inner/x.py"),
    }
    assert found["third_party"] == {"lib": ["lib", "lib.sub"], "space": ["space.installed"]}


def test_an_editable_install_is_local_whether_by_path_file_or_by_finder(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"src/by_pth/__init__.py": "", "lib/odd_folder/__init__.py": "", "lib/odd_folder/core.py": ""},
    )
    script = f"""
        import importlib.util, site, sys

        site.addsitedir({str(tmp_path / "site-packages")!r})

        class Finder:
            # as setuptools' __editable__ finders do it
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "by_finder":
                    folder = {str(tmp_path / "lib/odd_folder")!r}
                    return importlib.util.spec_from_file_location(
                        name, folder + "/__init__.py", submodule_search_locations=[folder])

        sys.meta_path.append(Finder)

        def f():
            import by_pth, by_finder.core
        """
    write(tmp_path / "site-packages", {"__editable__.x.pth": f"{tmp_path}/src\n"})
    found = reached(tmp_path, {"script.py": script})
    assert set(found["local"]) == {"by_pth", "by_finder", "by_finder.core"}


def test_imports_that_lead_nowhere_are_named_with_their_place_unless_they_are_guarded(tmp_path: Path) -> None:
    found = reached(
        tmp_path,
        {
            "script.py": """
                import helper

                def f():
                    import absent_one
                    try:
                        helper.go
                    except ValueError:
                        pass

                def g():
                    try:
                        import absent_two
                    except ImportError:
                        pass

                f.other = g
                f.helper = helper
                """,
            "helper.py": """
                from typing import TYPE_CHECKING
                if TYPE_CHECKING:
                    import absent_three
                try:
                    import absent_four
                except (ImportError, OSError):
                    absent_four = None
                def go():
                    import absent_five.x
                """,
        },
    )
    assert found["missing"] == {"absent_one": "function f", "absent_five": "module helper"}


def test_compiled_modules_beside_the_source_are_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    write(tmp_path, {f"compiled_one{suffix}": "not really", f"compiled_pkg/core{suffix}": ""})
    write(tmp_path, {"compiled_pkg/__init__.py": ""})
    monkeypatch.syspath_prepend(tmp_path)

    def f() -> None:
        import compiled_one  # type: ignore[import-not-found]  # noqa: F401
        from compiled_pkg import core  # type: ignore[import-not-found]  # noqa: F401

    assert {"compiled_one", "compiled_pkg", "compiled_pkg.core"} <= set(reach(f).local)


def test_the_project_itself_and_the_standard_library_never_travel() -> None:
    import xml.etree.ElementTree as Tree

    def f() -> object:
        import sqlite3

        import remote_exec.model.bundle

        return Tree.parse, remote_exec, sqlite3, remote_exec.model.bundle

    found = reach(f)
    names = {name.partition(".")[0] for name in found.local}
    assert not names & {"remote_exec", "xml", "sqlite3", "pathlib"}
    assert found.missing == {}


def test_recursive_functions_and_self_referring_values_end(tmp_path: Path) -> None:
    loop: list[object] = []
    loop.append(loop)

    def f(n: int) -> object:
        return (f(n - 1) if n else loop, g)

    def g() -> object:
        return f

    assert reach(f).missing == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda text: imports_of_source(text.encode()),
        lambda text: imports_of_code(compile(text, "x", "exec")),
    ],
    ids=["source", "bytecode"],
)
def test_source_and_bytecode_name_the_same_imports(make: Callable[[str], Any]) -> None:
    text = textwrap.dedent("""
        import a, b.c as d
        from e import f, g as h
        from . import i
        from ..j.k import *
        class C:
            import l
            def m(self):
                for _ in ():
                    import n
                with open("x") as y:
                    from o import p
                match y:
                    case 1:
                        import q
                while self:
                    import r
                return lambda: __import__("s.t")
        """)
    found = {(item.module, item.names, item.level) for item in make(text) if item.module != "x"}
    assert found == {
        ("a", (), 0), ("b.c", (), 0), ("e", ("f", "g"), 0), ("", ("i",), 1), ("j.k", ("*",), 2), ("l", (), 0),
        ("n", (), 0), ("o", ("p",), 0), ("q", (), 0), ("r", (), 0), ("s.t", (), 0),
    }  # fmt: skip

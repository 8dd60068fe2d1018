"""`%remote ...`, the flags of `%%remote`, their completion, and the magic as a comment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernels import Notebook
from servers import until

CONFIG = """
[tool.remote_exec.instances.bigger]
backend = "local"
cpus = 1
"""


@pytest.fixture(scope="module")
def configured(notebook: Notebook) -> Notebook:
    """A notebook whose project has another instance type."""
    notebook.run(f"from pathlib import Path\n_ = Path('pyproject.toml').write_text({CONFIG!r})")
    return notebook


def completions(notebook: Notebook, text: str) -> list[str]:
    """What a front end offers at the end of a text."""
    reply = notebook.client.complete(text, len(text), reply=True, timeout=30)["content"]
    start = reply["cursor_start"]
    return [text[:start] + one for one in reply["matches"]]


def test_status_tells_where_cells_run_and_restart_ends_their_namespace(configured: Notebook) -> None:
    notebook = configured
    notebook.run("%%remote\nthere = 1")
    assert "there" in notebook.run("%remote status").value["text/plain"]
    assert "is gone" in notebook.run("%remote restart").stdout
    assert "none yet" in notebook.run("%remote status").value["text/plain"]
    assert notebook.value("there") == 1
    assert notebook.run("%%remote\nthere").value["text/plain"] == "1"


def test_use_sets_the_notebook_s_default(configured: Notebook) -> None:
    notebook = configured
    notebook.run("%remote use bigger")
    assert "bigger" in notebook.run("%config RemoteMagics").stdout
    assert "bigger" in notebook.run("%remote use").value["text/plain"].split("used")[0]
    notebook.run("%%remote\nimport time; time.sleep(0.7)")
    assert "instance_type=bigger" in notebook.run("%remote status").value["text/plain"]
    notebook.run("%config RemoteMagics.instance_type = ''")
    notebook.run("%%remote\npass")
    assert "instance_type=local" in notebook.run("%remote status").value["text/plain"]
    notebook.run("%remote restart bigger")


def test_wrong_words_are_usage_errors_that_name_the_nearest(configured: Notebook) -> None:
    notebook = configured
    for source, told in {
        "%remote job": "did you mean %remote jobs?",
        "%remote jobs --stat x": "--state",
        "%remote use biger": "did you mean 'bigger'?",
        "%%remote --instanc-type bigger\npass": "--instance-type",
        "%%remote biger\npass": "did you mean 'bigger'?",
        "%%remote jobs\npass": "%remote jobs is a command",
        "%%remote --job-name-prefix alone\npass": "add --detach",
        "%%remote --name -alone\npass": "--name",
        "%%remote --detach --keep\npass": "--keep",
        "%%remote --cpus many\npass": "'cpus'",
        "%%remote --dependencies six tqdm\npass": "--dependencies six,tqdm",
        "%%remote local --dependencies six tqdm\npass": "--dependencies six,tqdm",
        "%remote hosts stopp": "stop",
    }.items():
        ran = notebook.run(source, fails=True)
        assert ran.reply["ename"] == "UsageError", source
        assert told in ran.reply["evalue"], (source, ran.reply["evalue"])


def test_jobs_logs_and_results_by_name(configured: Notebook) -> None:
    notebook = configured
    notebook.run(
        "from remote_exec import remote\n"
        "@remote(name='counted')\n"
        "def count(n):\n    print('counting', n)\n    return list(range(n))\n"
        "count.submit(3).result()"
    )
    assert notebook.run("value = %remote result counted\nvalue").value["text/plain"] == "[0, 1, 2]"
    assert notebook.run("%remote logs counted").stdout == "counting 3\n"
    table = notebook.run("rows = %remote jobs --prefix counted\nrows").value
    assert "<table" in table["text/html"]
    assert table["text/plain"].splitlines()[0].startswith("NAME")
    assert notebook.value("[row['name'] for row in rows.rows]") == ["counted"]
    assert notebook.value("rows[0]['name'], len(rows)") == ("counted", 1)
    assert "succeeded" in notebook.run("%remote jobs counted").value["text/plain"]
    near = notebook.run("%remote result cuonted", fails=True)
    assert near.reply["ename"] == "UsageError"
    assert "did you mean counted?" in near.reply["evalue"]
    assert "has ended already" in notebook.run("%remote cancel counted").stderr


def named_so(notebook: Notebook, count: int) -> list[str]:
    """Wait until so many cells are listed under a name, which may take a moment; return what lists call them."""

    def names() -> list[str]:
        notebook.run("named = %remote jobs --prefix tuned-")
        found: list[str] = notebook.value("[row['name'] for row in named.rows]")
        return found

    found = until(lambda: names()[count - 1 :] and names())
    assert len(found) == count
    return list(found)


def test_a_cell_is_found_by_the_name_that_it_was_given(configured: Notebook) -> None:
    notebook = configured
    notebook.run(
        "%%remote --name tuned\nprint('first')\nfrom remote_exec import log_metrics\nlog_metrics({'loss': 3})"
    )
    notebook.run("%%remote\nprint('of no name')")
    named_so(notebook, 1)
    assert notebook.run("%remote logs tuned").stdout == "first\n"
    assert "loss" in notebook.run("%remote metrics tuned").stdout
    ran = notebook.run("%%remote --name tuned\nprint('second')\n1 / 0", fails=True)
    names = named_so(notebook, 2)
    assert notebook.run("%remote logs tuned").stdout == "second\n", "the newest of those that share it"
    told = notebook.run("%remote jobs tuned").value["text/plain"]
    assert f"[{ran.reply['execution_count']}] print('second')" in told
    assert "ZeroDivisionError" in told
    assert "has ended already" in notebook.run("%remote cancel tuned").stderr
    assert notebook.run("%remote result tuned", fails=True).ename == "ZeroDivisionError"
    assert sorted(completions(notebook, "%remote logs tun")) == [
        f"%remote logs {name}" for name in ["tuned", *sorted(names)]
    ]
    notebook.run("%%remote --detach --name tuned\n'a job'")
    assert notebook.run("%remote result tuned").value["text/plain"] == "'a job'", "a job's name is its own"
    refused = notebook.run("%%remote --name tuned\nprint('not run')", fails=True)
    assert refused.ename == "ConfigurationError"
    assert "a job named 'tuned' exists" in refused.traceback
    assert not refused.stdout


def test_hosts_are_told_of(configured: Notebook) -> None:
    notebook = configured
    told = notebook.run("found = %remote hosts\nfound").value
    assert told["text/plain"].startswith("HOST")
    assert "<table" in told["text/html"]
    told_of = notebook.value("[(row['host'], row['state']) for row in found]")
    assert told_of[0] == ("local", "here")  # behind it stand the hosts that other tests have reached
    assert [row for row in told_of if "local" in row or "here" in row] == [("local", "here")]
    assert "there is no host 'nowhere'" in notebook.run("%remote hosts stop nowhere", fails=True).traceback


def test_a_failed_job_s_traceback_is_its_own(configured: Notebook) -> None:
    notebook = configured
    notebook.run(
        "@remote(name='broken')\ndef broken():\n    return 1 / 0\n"
        "try: broken()\nexcept ZeroDivisionError: pass"
    )
    ran = notebook.run("%remote result broken", fails=True)
    assert ran.ename == "ZeroDivisionError"
    assert "return 1 / 0" in ran.traceback
    assert "jupyter_ext" not in ran.traceback
    assert "click" not in ran.traceback


def test_help(configured: Notebook) -> None:
    notebook = configured
    assert "--detach" in notebook.run("%%remote --help\npass").stdout
    text = notebook.run("%remote help").stdout
    for word in (
        "hosts",
        "status",
        "use",
        "jobs",
        "logs",
        "cancel",
        "result",
        "attach",
        "pools",
        "config",
        "restart",
    ):
        assert f"\n  {word} " in text
    assert "--prefix" in notebook.run("%remote help jobs").stdout
    assert "--prefix" in notebook.run("%remote jobs --help").stdout
    assert "Usage: %remote hosts stop " in notebook.run("%remote help hosts stop").stdout


def test_metrics_of_a_remote_cell_are_shown(configured: Notebook) -> None:
    configured.run(
        "%%remote --detach --name measured\nfrom remote_exec import log_metrics\nfor step in range(3):\n"
        "    log_metrics({'loss': 2.5 - step}, step)"
    )
    configured.run("%remote result measured")
    table = configured.run("%remote metrics measured").stdout.splitlines()
    assert table[1].split() == ["loss", "0.5", "2", "0.5", "2.5", "3"]


def test_config_tells_what_set_each_option(configured: Notebook) -> None:
    text = configured.run("%remote config --set").value["text/plain"]
    assert "instance_type" in text
    pools = configured.run("%remote pools").value["text/plain"]
    assert pools.startswith("POOL")


def test_completion(configured: Notebook) -> None:
    notebook = configured
    for text, wanted in {
        "%%remote --max-run": "%%remote --max-runtime-in-seconds",
        "%%remote big": "%%remote bigger",
        "%%remote --instance-type big": "%%remote --instance-type bigger",
        "%%remote --instance-type=big": "%%remote --instance-type=bigger",
        "# %%remote big": "# %%remote bigger",
        "%remote sta": "%remote status",
        "%remote use b": "%remote use bigger",
        "%remote help hos": "%remote help hosts",
        "%remote hos": "%remote hosts",
        "%remote hosts sto": "%remote hosts stop",
        "%remote restart big": "%remote restart bigger",
        "%remote jobs --pre": "%remote jobs --prefix",
        "rows = %remote jobs --lim": "rows = %remote jobs --limit",
        "x = 1\n%remote conf": "x = 1\n%remote config",
    }.items():
        assert completions(notebook, text) == [wanted], text
    notebook.run("from remote_exec import remote\n@remote(name='to-complete')\ndef it(): return 1\nit()")
    assert completions(notebook, "%remote logs to-") == ["%remote logs to-complete"]
    assert "bigger" not in str(completions(notebook, "x = 1\n%%remote big")), (
        "a cell magic is a cell's first line"
    )


def test_a_comment_is_the_magic_and_goes_with_the_extension(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    notebook.run("import os\nhere = os.getpid()")
    for first in ("# %%remote", "#%%remote local", "\n# %%remote local --out there"):
        assert notebook.run(f"{first}\nthere = os.getpid()\nthere != here").value["text/plain"] == "True", (
            first
        )
    for other in ("# %%remotely", "#   %%remote", "# remote", "x = 1\n# %%remote"):
        assert notebook.run(f"{other}\nos.getpid() == here").value["text/plain"] == "True", other
    ran = notebook.run("# %%remote\n\n1 / 0", fails=True)
    assert "line 3" in ran.traceback
    notebook.run("%unload_ext jupyter_ext")
    assert notebook.run("# %%remote\nos.getpid() == here").value["text/plain"] == "True"
    assert completions(notebook, "%%remote --max-run") == []
    assert notebook.run("%remote status", fails=True).reply["ename"] == "UsageError"
    notebook.run("%load_ext jupyter_ext")
    assert notebook.run("# %%remote\nos.getpid() != here").value["text/plain"] == "True"


def test_a_cell_that_takes_too_long_is_stopped(notebook: Notebook) -> None:
    ran = notebook.run("%%remote --timeout 2\nimport time\nbefore = 7\ntime.sleep(60)", fails=True)
    assert ran.ename == "MaxRuntimeExceeded"
    assert notebook.value("before") == 7
    assert notebook.run("%%remote\nbefore").value["text/plain"] == "7", "the namespace is still there"
    assert notebook.run("%%remote --timeout 60\nbefore").value["text/plain"] == "7", (
        "so it is with other limits"
    )


def test_a_terminal_s_ipython_shows_plain_text(tmp_path: Path) -> None:
    script = tmp_path / "it.ipy"
    script.write_text(
        "%load_ext jupyter_ext\n"
        "from remote_exec import remote\n"
        "@remote(name='from-a-terminal')\n"
        "def one(): return 1\n"
        "one()\n"
        "rows = %remote jobs --prefix from-a-terminal\n"
        "print(rows)\n"
        "future = %remote attach from-a-terminal\n"
        "print(get_ipython().display_formatter.format(future)[0])\n"
        "%remote use local\n"
        "print(get_ipython().magics_manager.registry['RemoteMagics'].most_bytes)\n"
        "print(get_ipython().complete('', '%%remote --max-run', 18)[1])\n"
    )
    program = Path(sys.executable).with_name("ipython")
    if not program.exists():
        pytest.skip("NOT TO BE HAD HERE: ipython")
    ran = subprocess.run(
        [str(program), "--no-banner", "--colors=NoColor", "--RemoteMagics.most_bytes=12345", str(script)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")},
    )
    assert ran.returncode == 0, ran.stderr
    assert "from-a-terminal  succeeded" in ran.stdout
    assert "{'text/plain': 'from-a-terminal · local · succeeded" in ran.stdout
    assert "runs cells on local from now on" in ran.stdout
    assert "--max-runtime-in-seconds" in ran.stdout
    assert "12345" in ran.stdout
    assert "<table" not in ran.stdout

"""Ctrl-C at any moment: it ends the call of the thread that it is for, and takes nothing from the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import _thread, threading, time
from remote_exec import remote

def echo(x):
    return x

call, interrupts, ended = remote(max_workers=2)(echo), 300, False
call(0)
inside = threading.Event()
answers = [0, 0]

def disturb():
    for number in range(10 * interrupts):
        time.sleep(0.0001 * (number % 37))
        if inside.is_set():
            _thread.interrupt_main()

def ask(which):
    while not ended:
        assert call(which) == which
        answers[which] += 1

others = [threading.Thread(target=ask, args=(which,), daemon=True) for which in (0, 1)]
for thread in (*others, threading.Thread(target=disturb, daemon=True)):
    thread.start()
heard = 0

def be_interrupted():
    global heard
    while heard < interrupts:
        inside.set()
        try:
            while True:
                assert call(heard) == heard
        except KeyboardInterrupt:
            heard += 1
    inside.clear()
    time.sleep(0.2)

while True:  # some come in between
    try:
        be_interrupted()
        break
    except KeyboardInterrupt:
        pass
before = list(answers)
while not all(now > then for now, then in zip(answers, before)):
    time.sleep(0.01)
ended = True
for thread in others:
    thread.join()
assert call("after") == "after"
print("well")
"""


@pytest.mark.usefixtures("fresh_home")
def test_ctrl_c_at_any_moment_loses_nobody_elses_answer(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr

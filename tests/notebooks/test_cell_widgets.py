"""Widgets of a remote cell live in the page: what they show comes from there, and what the user does goes there."""

from __future__ import annotations

from typing import Any

from kernels import CellRun, Notebook

VIEW = "application/vnd.jupyter.widget-view+json"


def model(ran: CellRun, name: str) -> str:
    """Return the comm of the one widget of a kind that a cell has opened."""
    (found,) = [
        one["comm_id"] for one in ran.comms("open") if one["data"]["state"].get("_model_name") == name
    ]
    return str(found)


def set_value(notebook: Notebook, comm: str, **state: Any) -> CellRun:
    return notebook.say(comm, {"method": "update", "state": state, "buffer_paths": []})


def test_a_slider_is_shown_and_heard(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nimport ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nseen, by_all = [], []\nalias = seen\n"
        "def changed(change):\n    global latest\n    latest = change['new']\n    seen.append(latest)\n"
        "    print('now', latest)\nslider.observe(changed, 'value')\nslider"
    )
    comm = model(ran, "IntSliderModel")
    assert ran.value[VIEW]["model_id"] == comm
    heard = set_value(notebook, comm, value=7)
    assert heard.stdout == "now 7\n"
    assert notebook.value("seen, latest, alias is seen") == ([7], 7, True)
    assert notebook.run("%%remote\nslider.value, seen").value["text/plain"] == "(7, [7])"
    notebook.run("seen.append('from here')")
    ran = notebook.run("%%remote\nslider.value = 9")
    assert [one["data"]["state"] for one in ran.comms("msg") if one["comm_id"] == comm] == [{"value": 9}]
    assert notebook.value("seen, latest") == ([7, "from here", 9], 9)


def test_a_button_calls_a_function_of_the_notebook(notebook: Notebook) -> None:
    notebook.run("def clicked(button):\n    clicks.append(button.description)\nclicks = []")
    ran = notebook.run(
        "%%remote\nfrom ipywidgets import Button\nbutton = Button(description='go')\nbutton.on_click(clicked)"
    )
    notebook.say(model(ran, "ButtonModel"), {"method": "custom", "content": {"event": "click"}})
    assert notebook.value("clicks") == ["go"]
    notebook.run("def clicked(button):\n    1 / 0")
    ran = notebook.run("%%remote\nother = Button()\nother.on_click(clicked)")
    told = notebook.say(model(ran, "ButtonModel"), {"method": "custom", "content": {"event": "click"}})
    assert "ZeroDivisionError" in told.stdout
    assert notebook.value("clicks") == ["go"]


def test_a_page_that_is_opened_again_asks_for_states(notebook: Notebook) -> None:
    ran = notebook.run("%%remote\nfrom ipywidgets import Text\ntext = Text(value='written there')\ntext")
    told = notebook.say(model(ran, "TextModel"), {"method": "request_state"})
    assert told.comms("msg")[0]["data"]["state"]["value"] == "written there"


def test_what_interact_prints_is_in_its_output(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nfrom ipywidgets import interact\n@interact(number=(0, 9))\n"
        "def shown(number=2):\n    print('is', number)"
    )
    output, slider = model(ran, "OutputModel"), model(ran, "IntSliderModel")
    for one, text in ((ran, "is 2\n"), (set_value(notebook, slider, value=5), "is 5\n")):
        told: list[str] = []
        for kind, content in (
            (message["header"]["msg_type"], message["content"]) for message in one.messages
        ):
            if kind == "comm_msg" and content["comm_id"] == output:
                told += [content["data"]["state"]["msg_id"]]
            elif kind == "stream" and content["name"] == "stdout":
                told += ["printed"]
        assert one.stdout == text
        assert told == [one.messages[0]["parent_header"]["msg_id"], "printed", ""]


def test_bars_of_tqdm_are_widgets(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nfrom tqdm.auto import tqdm\nfor step in tqdm(range(5), desc='steps'):\n    pass"
    )
    assert VIEW in ran.displays[0]
    bar = model(ran, "FloatProgressModel")
    states = [one["data"].get("state", {}) for one in ran.comms("msg") if one["comm_id"] == bar]
    assert [state["value"] for state in states if "value" in state][-1] == 5


def test_widgets_of_a_lost_worker_do_nothing(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    ran = notebook.run("%%remote\nfrom ipywidgets import IntSlider\nslider = IntSlider()\nslider")
    notebook.run("%%remote\nimport os\nos._exit(1)", fails=True)
    told = set_value(notebook, model(ran, "IntSliderModel"), value=1)
    assert not told.outputs
    assert notebook.run("%%remote\n1").value["text/plain"] == "1"

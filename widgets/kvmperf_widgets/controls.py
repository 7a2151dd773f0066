"""Buttons for a live view: pause, stop, sort, snapshot. The only part that needs ipywidgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Live(Protocol):
    """What the buttons can do to a live view."""

    sort: str

    @property
    def running(self) -> bool: ...
    @property
    def paused(self) -> bool: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...
    def snapshot(self) -> Any: ...


def top_controls(live: Live, sorts: Sequence[str]) -> Any:
    """A row of ipywidgets for `live`, to be taken away when it ends."""
    import ipywidgets as widgets

    pause = widgets.ToggleButton(description="Pause", icon="pause")
    stop = widgets.Button(description="Stop", icon="stop")
    snapshot = widgets.Button(description="Snapshot", icon="camera")
    sort = widgets.Dropdown(options=list(sorts), value=live.sort, description="sort by")
    said = widgets.Label()

    def on_pause(change: dict[str, Any]) -> None:
        (live.pause if change["new"] else live.resume)()
        pause.description, pause.icon = ("Resume", "play") if change["new"] else ("Pause", "pause")

    def on_stop(_: object) -> None:
        live.stop()

    def on_snapshot(_: object) -> None:
        said.value = "saving ..."
        try:
            said.value = f"saved as {live.snapshot().path}"
        except Exception as error:  # a button has nowhere else to say it
            said.value = str(error)

    def on_sort(change: dict[str, Any]) -> None:
        live.sort = change["new"]

    pause.observe(on_pause, "value")
    stop.on_click(on_stop)
    snapshot.on_click(on_snapshot)
    sort.observe(on_sort, "value")
    for button in (pause, stop, snapshot):
        button.layout.width = "105px"
    sort.layout.width = "200px"
    return widgets.HBox([pause, stop, snapshot, sort, said], layout={"flex_flow": "row wrap"})

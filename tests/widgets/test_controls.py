"""The buttons of a live view do what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kvmperf_widgets.controls import top_controls


class Live:
    def __init__(self) -> None:
        self.sort = "overhead"
        self.calls: list[str] = []
        self.full = False

    running, paused = True, False

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def stop(self) -> None:
        self.calls.append("stop")

    def snapshot(self) -> Any:
        if self.full:
            raise OSError(28, "No space left on device")
        return SimpleNamespace(path="perf.data.top")


def test_each_button_reaches_the_view() -> None:
    live = Live()
    pause, stop, snapshot, sort, said = top_controls(live, ["overhead", "symbol"]).children
    pause.value = True
    assert pause.description == "Resume"
    pause.value = False
    assert pause.description == "Pause"
    stop.click()
    assert live.calls == ["pause", "resume", "stop"]
    sort.value = "symbol"
    assert live.sort == "symbol"
    snapshot.click()
    assert said.value == "saved as perf.data.top"
    live.full = True
    snapshot.click()
    assert "No space left" in said.value

"""The kernel's side of a live view's widget for a page without one: see live_page.py."""

from __future__ import annotations

import base64
import json
from typing import Any

from kvmperf_magic.live import Top
from kvmperf_widgets.top import TopView
from kvmperf_widgets.top_widget import TopWidget


class Kernel:
    """A place where `top` is shown: its messages wait until the page fetches them."""

    def __init__(self, top: Top) -> None:
        self.widget = TopWidget(top)
        self.widget.send = self._send
        self._waiting: list[tuple[Any, list[str]]] = []
        self.sizes: list[int] = []
        top._places.add(self)

    def show(self, view: TopView) -> None:
        self.widget.show(view)

    def _send(self, content: Any, buffers: Any = None) -> None:
        packed = [base64.b64encode(one).decode() for one in buffers or ()]
        self._waiting.append((content, packed))
        self.sizes.append(len(json.dumps(content)) + sum(map(len, buffers or ())))

    def __call__(self, content: Any) -> list[Any]:
        """A message of the page, or none; what is to come back."""
        if content is not None:
            self.widget._on_message(self.widget, content, [])
        waiting, self._waiting = self._waiting, []
        return waiting

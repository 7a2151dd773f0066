"""The kernel's side of a widget for a page without one: see live_page.py."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

from kvmperf_magic.live import Top
from kvmperf_widgets.live import LiveWidget
from kvmperf_widgets.top import TopView
from kvmperf_widgets.top_widget import TopWidget


class Answering:
    """A widget whose messages wait until its page fetches them."""

    def __init__(self, widget: LiveWidget) -> None:
        self.widget: Any = widget
        self.widget.send = self._send
        self._waiting: list[tuple[Any, list[str]]] = []
        self.sizes: list[int] = []

    def _send(self, content: Any, buffers: Any = None) -> None:
        packed = [base64.b64encode(one).decode() for one in buffers or ()]
        self._waiting.append((content, packed))
        self.sizes.append(len(json.dumps(content)) + sum(map(len, buffers or ())))

    def __call__(self, content: Any) -> list[Any]:
        """A message of the page, or none; what is to come back."""
        if content is not None:
            self.hear(content)
        waiting, self._waiting = self._waiting, []
        return waiting

    def hear(self, content: Any) -> None:
        self.widget._on_message(self.widget, content, [])


class Kernel(Answering):
    """A place where `top` is shown. What the page says is heard beside other cells, or without
    `apart` when `busy` is over."""

    def __init__(self, top: Top, apart: bool = True) -> None:
        super().__init__(TopWidget(top))
        self._apart = apart
        self.busy = False
        self._unheard: list[Any] = []
        top._places.add(self)

    def show(self, view: TopView) -> None:
        self.widget.show(view)

    def __call__(self, content: Any) -> list[Any]:
        self._unheard += [] if content is None else [content]
        while self._unheard and not self.busy:
            self.hear(self._unheard.pop(0))
        return super().__call__(None)

    def hear(self, content: Any) -> None:
        if self._apart:
            thread = threading.Thread(target=super().hear, args=(content,))
            thread.start()
            thread.join()
        else:
            super().hear(content)

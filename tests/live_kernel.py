"""The kernel's side of a live view's widget for a page without one: see live_page.py."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

from kvmperf_magic.live import Top
from kvmperf_widgets.top import TopView
from kvmperf_widgets.top_widget import TopWidget


class Kernel:
    """A place where `top` is shown: its messages wait until the page fetches them. What the page
    says is heard beside other cells, or without `apart` when `busy` is over."""

    def __init__(self, top: Top, apart: bool = True) -> None:
        self._apart = apart
        self.busy = False
        self._unheard: list[Any] = []
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
        self._unheard += [] if content is None else [content]
        while self._unheard and not self.busy:
            heard = (self.widget, self._unheard.pop(0), [])
            if self._apart:
                thread = threading.Thread(target=self.widget._on_message, args=heard)
                thread.start()
                thread.join()
            else:
                self.widget._on_message(*heard)
        waiting, self._waiting = self._waiting, []
        return waiting

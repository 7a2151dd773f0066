"""Live pictures: widgets (anywidget: no build step) that take the place of a saved picture.

What a notebook saves is the picture: the widget adds nothing to the document, and its data are
sent when the page asks for them, not kept as the widget's state.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import anywidget
import traitlets

from kvmperf_widgets.picture import PLOTLY, Picture
from kvmperf_widgets.scripts import source

__all__ = ["LivePicture", "LiveWidget", "source"]


class LiveWidget(anywidget.AnyWidget):
    """A widget whose page asks for its data: `packed` gives a header and columns as bytes."""

    asked_for: ClassVar[str]  # the type of the message that asks, and of the answer
    theme = traitlets.Unicode("auto").tag(sync=True)
    picture = traitlets.Unicode("").tag(sync=True)  # whose place it takes in the page
    own = traitlets.Unicode().tag(sync=True)  # its model's id, by which the page finds that

    def __init__(
        self, packed: Callable[[], tuple[dict[str, Any], list[bytes]]], **traits: Any
    ) -> None:
        own = uuid.uuid4().hex
        super().__init__(model_id=own, own=own, **traits)
        self._packed = packed
        self.on_msg(self._on_message)

    def _on_message(self, _widget: Any, content: Any, _buffers: list[Any]) -> None:
        if isinstance(content, dict) and content.get("type") == self.asked_for:
            header, buffers = self._packed()
            self.send({"type": self.asked_for, **header}, buffers)


class LivePicture:
    """A picture as a cell shows it where `widget` is alive: marked, so that the page's side of
    the widget finds it by the widget's `picture`."""

    widget: LiveWidget

    def __init__(self, picture: Picture) -> None:
        self._id = uuid.uuid4().hex
        self._picture = picture

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        bundle = self._picture._repr_mimebundle_(include, exclude)
        if PLOTLY in bundle:
            bundle[PLOTLY]["layout"]["meta"] = {"kvmperf": self._id}
        return bundle

    def __repr__(self) -> str:
        return repr(self._picture)

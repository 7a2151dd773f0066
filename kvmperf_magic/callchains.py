"""The frames of every sample, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.table import Categorical


@dataclass(frozen=True)
class Callchains:
    """Frames of n samples, leaf first: those of sample i are offsets[i] to offsets[i + 1]."""

    offsets: NDArray[np.int64]
    ip: NDArray[np.uint64]
    mode: NDArray[np.uint8]
    symbol: Categorical
    dso: Categorical

    @classmethod
    def of(
        cls, profile: Profile, frame_ip: NDArray[np.uint64], frame_mode: NDArray[np.uint8]
    ) -> Callchains:
        bounds = profile.stacks.offsets
        counts = np.diff(bounds)[profile.stack]
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        # stacks are root first: walk each back from its end
        last = np.repeat(bounds[profile.stack + 1] - 1, counts)
        index = last - (np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts))
        frame = profile.stacks.frames[index]
        frames = profile.frames
        symbol, dso = frames.symbol.take(frame), frames.dso.take(frame)
        return cls(offsets, frame_ip[index], frame_mode[index], symbol, dso)

    def __repr__(self) -> str:
        deepest = int(np.diff(self.offsets).max(initial=0))
        return (
            f"<Callchains: {len(self):,} samples, {len(self.ip):,} frames, at most {deepest:,} "
            "each; offsets, ip, mode, symbol, dso>"
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

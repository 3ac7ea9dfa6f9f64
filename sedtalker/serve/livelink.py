"""Live Link Face over UDP, as Epic's iPhone app sends it and Unreal Engine reads it."""

from __future__ import annotations

import struct
import uuid
from datetime import datetime

import numpy as np

from sedtalker.serve.engine import FrameBlock

VERSION = 6
VALUES = 61  # 52 blendshapes in ARKit's order, then yaw, pitch and roll of the head, the left and the right eye


class LiveLinkFace:
    """Packets of one subject."""

    def __init__(self, fps: int, name: str = "SEDTalker") -> None:
        self.fps, self.name = fps, name.encode()
        self._id = f"${uuid.uuid4()}".encode()  # 37 bytes

    def encode(self, block: FrameBlock, row: int, now: datetime) -> bytes:
        """A frame of a block, with the time of day as its timecode."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        frame, part = divmod((now - midnight).total_seconds() * self.fps, 1)
        pitch, yaw, roll = np.radians(block.head[row])
        left, up = np.radians(block.gaze[row])
        angles = [yaw, pitch, roll, left, -up, 0.0, left, -up, 0.0]
        values = [*map(float, block.weights[row]), *map(float, angles)]
        return b"".join(
            [
                struct.pack("<I", VERSION),
                self._id,
                struct.pack("!i", len(self.name)),
                self.name,
                struct.pack("!If", int(frame), part),
                struct.pack("!II", self.fps, 1),
                struct.pack(f"!B{VALUES}f", VALUES, *values),
            ]
        )

"""Counters and latencies, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection
from typing import Any

import numpy as np

_WINDOW = 2000  # latest values of a latency
_QUANTILES = (0.5, 0.95, 0.99)


class Latency:
    """Quantiles of the latest values, and the sum and count of all."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_WINDOW)
        self.sum, self.count = 0.0, 0

    def add(self, seconds: float) -> None:
        """Add a value."""
        self._latest.append(seconds)
        self.sum += seconds
        self.count += 1

    def quantile(self, share: float) -> float:
        """A quantile of the latest values, NaN without any."""
        return float(np.quantile(np.array(self._latest), share)) if self._latest else float("nan")


class Metrics:
    """Counters and latencies of the server. No value depends on the content of the speech."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.connections: Collection[Any] = ()  # of HTTP and WebSockets, open now
        self.sessions = 0  # open now
        self.opened: Counter[str] = Counter()  # by protocol
        self.closed: Counter[str] = Counter()  # by reason
        self.rejected: Counter[str] = Counter()  # by reason
        self.frames = 0
        self.audio_seconds = 0.0  # animated
        self.compute_seconds = 0.0
        self.interruptions = 0
        self.step = Latency()  # computing of one push
        self.delay = Latency()  # from the arrival of audio to its frames being sent

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing a second of audio, NaN before any."""
        return self.compute_seconds / self.audio_seconds if self.audio_seconds else float("nan")

    def text(self) -> str:
        """The exposition format, version 0.0.4."""
        lines: list[str] = []

        def add(name: str, kind: str, text: str, values: dict[str, float]) -> None:
            lines.append(f"# HELP sedtalker_{name} {text}")
            lines.append(f"# TYPE sedtalker_{name} {kind}")
            lines.extend(f"sedtalker_{name}{labels} {value:.9g}" for labels, value in values.items())

        def by(label: str, counts: Counter[str]) -> dict[str, float]:
            return {f'{{{label}="{_escape(key)}"}}': count for key, count in sorted(counts.items())}

        add("uptime_seconds", "gauge", "Time since the start.", {"": time.monotonic() - self.started})
        add("connections", "gauge", "Open connections of HTTP and WebSockets.", {"": len(self.connections)})
        add("sessions", "gauge", "Open sessions.", {"": self.sessions})
        add("sessions_opened_total", "counter", "Sessions by protocol.", by("protocol", self.opened))
        add("sessions_closed_total", "counter", "Sessions by the reason of their end.", by("reason", self.closed))
        add("rejected_total", "counter", "Refused requests by reason.", by("reason", self.rejected))
        add("frames_total", "counter", "Frames sent.", {"": self.frames})
        add("audio_seconds_total", "counter", "Seconds of audio animated.", {"": self.audio_seconds})
        add("interruptions_total", "counter", "Interruptions.", {"": self.interruptions})
        add("real_time_factor", "gauge", "Computing per second of audio.", {"": self.real_time_factor})
        for name, text, latency in (
            ("step_seconds", "Computing of one step.", self.step),
            ("delay_seconds", "From the arrival of audio to its frames being sent.", self.delay),
        ):
            values = {f'{{quantile="{share}"}}': latency.quantile(share) for share in _QUANTILES}
            add(name, "summary", text, values)
            lines.append(f"sedtalker_{name}_sum {latency.sum:.9g}")
            lines.append(f"sedtalker_{name}_count {latency.count}")
        return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

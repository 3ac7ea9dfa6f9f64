"""`sedtalker bench`: CPU time, latency and memory of a talker on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from sedtalker.cli.options import add_diarizer, add_look_ahead, any_path, real


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "bench", parents=[common], help="CPU time, latency and memory on this machine", description=__doc__
    )
    parser.add_argument(
        "audio", nargs="?", type=any_path, metavar="AUDIO", help="recording (default: that of the demo, repeated)"
    )
    parser.add_argument("--seconds", type=real(2, 3600, "s"), default=30.0, help="length to measure (default: 30)")
    parser.add_argument(
        "--soak", type=real(0, 1440, "min"), default=0.0, metavar="MIN", help="also stream so many minutes (default: 0)"
    )
    parser.add_argument(
        "--model", default="default", metavar="NAME|DIR", help="talker: default, a folder, or OWNER/NAME on the hub"
    )
    add_diarizer(parser)
    add_look_ahead(parser, "120")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the figures; times are CPU seconds of one thread."""
    import time

    import numpy as np

    started = time.process_time()
    from sedtalker.audio import SAMPLE_RATE, load_audio
    from sedtalker.evaluation import bench
    from sedtalker.pipeline import load
    from sedtalker.resources import asset

    count = round(arguments.seconds * SAMPLE_RATE)
    samples = np.resize(load_audio(arguments.audio or asset("demo.wav")), count)
    talker = load(arguments.model, diarizer=arguments.diarizer, device="cpu")
    if arguments.look_ahead is not None:
        talker.encoder.with_look_ahead(arguments.look_ahead)  # raises if there is none
    print(f"imports and weights: {time.process_time() - started:.2f} CPU seconds")
    with bench.one_thread():
        weights, vertices = bench.offline_cost(talker, samples)
        print(
            f"offline: {weights + vertices:.4f} CPU seconds a second of audio "
            f"(weights {weights:.4f}, vertices {vertices:.4f})"
        )
        for chunk in bench.LIVE_CHUNKS:
            cost = bench.live_cost(talker, samples, chunk, arguments.look_ahead)
            median, high = np.percentile(1000 * cost.steps, (50, 99))
            print(
                f"live in chunks of {1000 * chunk:.0f} ms: {cost.cpu:.4f}; a step takes {median:.1f} ms (median), "
                f"{high:.1f} ms (99 %); latency {1000 * cost.latency:.0f} ms, computing included"
            )
        if arguments.soak:
            bench.soak(talker, samples, arguments.soak, lambda state: print(_soak_line(state), flush=True))
    print(f"peak memory: {bench.resident_megabytes(peak=True):.0f} MB")
    return 0


def _soak_line(state: Any) -> str:
    return f"after {state.minutes[-1]:.0f} min: {state.cpu[-1]:.4f} CPU seconds a second, {state.megabytes[-1]:.0f} MB"

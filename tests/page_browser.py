"""The live page in headless Chromium with a microphone that plays a file.

As a script, measures the time from the microphone to the picture with a click track, on a server that runs:

    python tests/page_browser.py http://127.0.0.1:8000 --seconds 30
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np

from sedtalker.recipes.browser import open_browser, wait_until

_LOG_CLICKS = """
const done = arguments[0];
openMicrophone().then(() => {
  const log = (window.clickLog = { clicks: [], drawn: [], arrival: [], delay: [] });
  const port = microphone.node.port;
  const receive = port.onmessage;
  let count = 0; // samples of the utterance
  let quiet = 0; // samples since the last loud one
  port.onmessage = (event) => {
    const now = performance.now();
    if (microphone.talking) {
      const samples = new Int16Array(event.data);
      samples.forEach((value, i) => {
        const loud = Math.abs(value) > 3000;
        if (loud && quiet > 0.3 * context.sampleRate)
          log.clicks.push([(count + i) / context.sampleRate, now - ((samples.length - i) / context.sampleRate) * 1000]);
        quiet = loud ? 0 : quiet + 1;
      });
      count += samples.length;
    }
    receive(event);
  };
  const receiveMessage = receiveFrames;
  receiveFrames = (message) => {
    receiveMessage(message);
    if (message.state !== "speaking") return;
    const end = message.start + message.weights.length / message.fps;
    log.arrival.push(performance.now() - live.start - 1000 * end);
    log.delay.push(live.delay);
  };
  const draw = live.draw;
  live.draw = (now) => {
    draw(now);
    if (pace.drawn !== now) return; // the pose has not changed
    const row = [live.shown.at, head.influences[head.columns.jawOpen]];
    if (live.on) requestAnimationFrame((shown) => log.drawn.push([...row, shown])); // on the screen by the next frame
  };
  done();
});
"""


def click_track(path: Path, length: float = 0.3) -> Path:
    """Bursts of this length in seconds at the start of every second, as the fake microphone plays them in a loop."""
    times = np.arange(4 * 48_000) / 48_000
    sound = 0.9 * np.sin(2 * np.pi * 300 * times) * (times % 1 < length)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


def open_page_browser(microphone: Path, size: str = "480,700") -> Any:
    """Chromium with a file as its microphone. Raises MissingExtraError: no Chromium, or no driver."""
    browser = open_browser(
        "disable-gpu-compositing", f"window-size={size}", "autoplay-policy=no-user-gesture-required",
        "use-fake-ui-for-media-stream", "use-fake-device-for-media-stream",
        f"use-file-for-fake-audio-capture={microphone}", log=True,
    )  # fmt: skip
    browser.set_script_timeout(180)  # software rendering on a busy machine
    return browser


def click(browser: Any, name: str) -> None:
    """Click an element by its id."""
    browser.execute_script(f"document.getElementById('{name}').click()")


def load_page(browser: Any, url: str) -> None:
    """Open the page, and wait for its face and its session."""
    browser.get(url)
    wait_until(browser, "document.documentElement.dataset.ready === 'true' && sedtalker.connection.ready")


def measure_clicks(browser: Any, seconds: float) -> dict[str, list[float]]:
    """Milliseconds from a click's arrival in the page to the picture, after the first second of the utterance.

    `clock` is to the frame with the click's time on the audio's clock; `jaw` is to the first frame in which the jaw
    opens by 0.1 from where it was at the click, which depends on the model. Of the messages, `arrival` is the time
    from the end of the last frame's sound to their arrival, and `delay` the time by which frames follow the sound's
    start; `interval` is from picture to picture.
    """
    browser.execute_async_script(_LOG_CLICKS)
    click(browser, "open")
    time.sleep(seconds)
    click(browser, "open")
    wait_until(browser, "sedtalker.connection.state === 'idle'")
    log = browser.execute_script("return window.clickLog")
    rate = browser.execute_script("return FPS")
    result: dict[str, list[float]] = {"clock": [], "jaw": [], "arrival": log["arrival"], "delay": log["delay"]}
    shown = [row[2] for row in log["drawn"]]
    result["interval"] = [after - before for before, after in itertools.pairwise(shown)]
    for moment, arrived in log["clicks"]:
        after = [row for row in log["drawn"] if row[2] >= arrived and row[0] is not None]
        picture = next((row[2] for row in after if row[0] + 1 / rate > moment), None)
        if moment < 1 or picture is None:
            continue
        result["clock"].append(picture - arrived)
        opened = next((row[2] for row in after if row[1] > after[0][1] + 0.1 and row[2] < arrived + 900), None)
        if opened is not None:
            result["jaw"].append(opened - arrived)
    return result


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument(
        "--without-drawing",
        action="store_true",
        help="leave out WebGL's drawing, which is slow without a GPU: the time to the frame's choice",
    )
    parser.add_argument("--size", default="320,400", help="of the window; software rendering costs time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        browser = open_page_browser(click_track(Path(folder, "clicks.wav")), arguments.size)
        try:
            load_page(browser, arguments.url)
            if arguments.without_drawing:
                browser.execute_script("head.renderer.render = () => {}; pace.step = STEPS.length")
            result = measure_clicks(browser, arguments.seconds)
            frames = browser.execute_script("return window.clickLog.drawn.length")
        finally:
            browser.quit()
    summary: dict[str, Any] = {
        "clicks": len(result["clock"]),
        "pictures a second": round(frames / arguments.seconds, 1),
    }
    for name, values in result.items():
        quantiles = np.quantile(values, [0.5, 0.9, 1.0]).round().astype(int).tolist() if values else None
        summary[f"{name} ms: median, p90, most"] = quantiles
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()

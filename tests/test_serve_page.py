"""The live page in a browser with a microphone that plays a file."""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

import shutil
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for module in ("starlette", "uvicorn", "websockets", "httpx"):
    pytest.importorskip(module)
webdriver = pytest.importorskip("selenium.webdriver")

from made_server import MadeServer, made_server
from test_serve_http import animating_talker, wav

pytestmark = pytest.mark.slow


def microphone_file(path: Path) -> Path:
    """Bursts of 0.3 s every second, as the browser's fake microphone plays them in a loop."""
    times = np.arange(4 * 48_000) / 48_000
    sound = 0.9 * np.sin(2 * np.pi * 300 * times) * (times % 1 < 0.3)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[MadeServer]:
    with made_server(animating_talker()) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: MadeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with its driver (Debian: apt-get install chromium chromium-driver)")
    sound = microphone_file(tmp_path_factory.mktemp("microphone") / "a.wav")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new", "no-sandbox", "use-angle=swiftshader", "enable-unsafe-swiftshader", "window-size=480,700",
        "autoplay-policy=no-user-gesture-required", "disable-dev-shm-usage", "use-fake-ui-for-media-stream",
        "use-fake-device-for-media-stream", f"use-file-for-fake-audio-capture={sound}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.get(server.url)
    until(browser, "document.documentElement.dataset.ready === 'true' && sedtalker.connection.ready")
    yield browser
    browser.quit()


def until(browser: Any, expression: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not browser.execute_script(f"return {expression}"):
        assert time.monotonic() < end, f"not within {seconds} s: {expression}"
        time.sleep(0.05)


def click(page: Any, name: str) -> None:
    page.execute_script(f"document.getElementById('{name}').click()")


def test_the_face_speaks_listens_and_is_interrupted(page: Any) -> None:
    click(page, "open")
    until(page, "sedtalker.connection.state === 'speaking' && sedtalker.weight('jawOpen') > 0.3")
    click(page, "interrupt")
    until(page, "sedtalker.connection.state === 'idle' && sedtalker.weight('jawOpen') === 0", 30)
    click(page, "listen")
    until(page, "sedtalker.connection.state === 'listening'", 30)
    assert page.execute_script("return document.getElementById('state').textContent") == "Listening"
    click(page, "listen")
    until(page, "sedtalker.connection.state === 'idle'", 30)


def test_a_take_is_edited_by_hand(page: Any, tmp_path: Path) -> None:
    recording = tmp_path / "<img src=x onerror=alert(1)>.wav"
    recording.write_bytes(wav())
    page.find_element("id", "file").send_keys(str(recording))
    until(page, "sedtalker.take.current !== null")
    assert page.execute_script("return sedtalker.take.edited.map((s) => s.emotion)") == ["happy"]
    page.execute_script("sedtalker.seek(1.0)")
    page.find_element("id", "add-segment").click()
    page.execute_script(
        "const e = document.getElementById('segment-emotion'); e.value = 'sad'; e.dispatchEvent(new Event('change'))"
    )
    until(page, "document.getElementById('status').textContent === 'Animated again.'")
    emotions = page.execute_script("return sedtalker.take.edited.map((s) => [s.emotion, s.start, s.end])")
    assert emotions == [["happy", 0, 1], ["sad", 1, 2]]
    links = page.execute_script("return [...document.querySelectorAll('#save a')].map((a) => a.href.split('.').pop())")
    assert links == ["json", "mp4", "glb", "csv", "html"]


def test_keyboard_labels_and_phone(page: Any) -> None:
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('button, input, select, a[href], canvas')].filter((e) => !("
        "e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    click(page, "back")
    page.execute_script("document.getElementById('talk').focus()")
    assert page.execute_script("return document.activeElement.id") == "talk"
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert page.execute_script("return document.documentElement.scrollWidth <= 390")
    small = page.execute_script(
        "return [...document.querySelectorAll('#panel button')].filter((e) => e.offsetParent && e.offsetHeight < 36)"
        ".length"
    )
    assert small == 0
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_comes_from_elsewhere_and_nothing_is_wrong(page: Any, server: MadeServer) -> None:
    import json

    requested = set()
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requested.add(message["params"]["request"]["url"])
    assert requested and all(url.startswith((server.url, "blob:", "data:")) for url in requested), requested
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []

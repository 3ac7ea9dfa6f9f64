"""The live page in a browser with a microphone that plays a file."""

# ruff: noqa: E402 - the imports need optional packages

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for module in ("starlette", "uvicorn", "websockets", "httpx"):
    pytest.importorskip(module)
pytest.importorskip("selenium.webdriver")

from made_server import MadeServer, made_server
from page_browser import click, click_track, load_page, measure_clicks, open_page_browser
from test_serve_http import animating_talker, wav

from sedtalker.errors import MissingExtraError
from sedtalker.recipes.browser import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[MadeServer]:
    with made_server(animating_talker()) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: MadeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        browser = open_page_browser(click_track(tmp_path_factory.mktemp("microphone") / "a.wav"))
    except MissingExtraError as error:
        pytest.skip(str(error))
    load_page(browser, server.url)
    yield browser
    browser.quit()


def test_the_face_speaks_listens_and_is_interrupted(page: Any) -> None:
    click(page, "open")
    wait_until(page, "sedtalker.connection.state === 'speaking' && sedtalker.weight('jawOpen') > 0.3")
    click(page, "interrupt")
    wait_until(page, "sedtalker.connection.state === 'idle' && sedtalker.weight('jawOpen') === 0", 30)
    click(page, "listen")
    wait_until(page, "sedtalker.connection.state === 'listening'", 30)
    assert page.execute_script("return document.getElementById('state').textContent") == "Listening"
    click(page, "listen")
    wait_until(page, "sedtalker.connection.state === 'idle'", 30)


def test_a_closed_session_is_explained_in_view_and_over_when_the_page_is_connected_again(page: Any) -> None:
    text = "document.getElementById('status').textContent"
    size = {"width": 1000, "height": 420, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.execute_script("sedtalker.connection.socket.send('{}')")
    wait_until(page, f"{text}.startsWith('The server closed the session')", 30)
    wait_until(page, f"{text}.endsWith('Connected again.') && sedtalker.connection.state === 'idle'", 30)
    assert page.execute_script("return document.getElementById('status').classList.contains('wrong')") is False
    low = "document.getElementById('status').getBoundingClientRect().bottom"
    assert page.execute_script("return document.getElementById('panel').scrollHeight > 420")
    assert page.execute_script(f"return {low}") <= 420
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_page_that_had_no_time_shows_the_present(page: Any) -> None:
    """Frames that arrive at once are not played one after the other, and those of speech are due at once."""
    message = (
        "const rows = 3; const message = (state, start) => ({ type: 'frames', state, start, fps: 30,"
        " weights: Array(rows).fill(Array(COUNT).fill(0)), head: Array(rows).fill([0, 0, 0]),"
        " gaze: Array(rows).fill([0, 0]), posterior: Array(rows).fill(data.labels.map(() => 0)),"
        " intensity: [0, 0, 0] });"
    )
    waiting, speech = page.execute_script(
        message + "for (let i = 0; i < 100; i++) receiveFrames(message('idle', i / 10));"
        "const waiting = live.queue.length; live.start = performance.now() - 200; live.delay = 0;"
        "receiveFrames(message('speaking', 0));"
        "const first = live.queue.findIndex((row) => row.at === 0);"
        "return [waiting, [live.queue[first].due - performance.now(), live.queue.length - first]]"
    )
    assert waiting < 20
    assert speech[0] < 100 and speech[1] == 3  # nothing waits behind or before them
    page.execute_script("live.queue = live.queue.filter((row) => row.at === null); live.clock = null")


def test_the_hand_sets_and_blends_the_emotion_while_the_face_speaks(page: Any) -> None:
    for share, happy, sad in ((0.5, 0.5, 0.5), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)):  # the voice is happy
        page.execute_script(
            "const set = (id, value) => { const e = document.getElementById(id); e.value = value;"
            " e.dispatchEvent(new Event('input', { bubbles: true })); };"
            "set('hand-emotion', 'sad'); set('hand-intensity', 0.9); set('hand-share', arguments[0]);",
            share,
        )
        click(page, "open")
        wanted = [happy, sad]
        wait_until(
            page,
            "(() => { const row = sedtalker.live.shown; return row.posterior && row.at !== null &&"
            f" {wanted}.every((v, k) => Math.abs(row.posterior[k + 1] - v) < 0.02); }})()",
        )
        click(page, "open")
        wait_until(page, "sedtalker.connection.state === 'idle'", 30)
    page.execute_script(
        "const e = document.getElementById('hand-emotion'); e.value = ''; e.dispatchEvent(new Event('input'))"
    )


def test_the_last_recording_of_the_microphone_becomes_a_take(page: Any) -> None:
    click(page, "open")
    wait_until(page, "microphone.pieces.length > 60")
    click(page, "open")
    wait_until(page, "sedtalker.connection.state === 'idle'", 30)
    click(page, "edit")
    wait_until(page, "sedtalker.take.current !== null")
    assert page.execute_script("return sedtalker.take.current.duration") > 1.2
    wait_until(page, "audio.duration > 1.2")
    click(page, "back")


def add_take(page: Any, folder: Path, name: str = "a.wav") -> None:
    recording = folder / name
    recording.write_bytes(wav())
    page.execute_script("sedtalker.take.current = null")
    page.find_element("id", "file").send_keys(str(recording))
    wait_until(page, "sedtalker.take.current !== null")


def test_the_subtitle_is_of_the_take_while_one_is_shown(page: Any, tmp_path: Path) -> None:
    add_take(page, tmp_path)
    assert page.find_element("id", "subtitle").text == "2.0 s · 30 fps"
    click(page, "back")
    assert "behind the sound" in page.find_element("id", "subtitle").text


def add_segment(page: Any) -> None:
    """Make the second half of a take of two seconds sad."""
    page.execute_script("sedtalker.seek(1.0)")
    page.find_element("id", "add-segment").click()
    page.execute_script(
        "const e = document.getElementById('segment-emotion'); e.value = 'sad'; e.dispatchEvent(new Event('change'))"
    )
    assert segments(page) == [["happy", 0, 1], ["sad", 1, 2]]


def segments(page: Any) -> list[list[Any]]:
    """Emotion, start and end of the segments, when the take was animated with them."""
    wait_until(page, "sedtalker.take.current.sequence === sedtalker.take.sequence")
    result: list[list[Any]] = page.execute_script(
        "return sedtalker.take.edited.map((s) => [s.emotion, s.start, s.end])"
    )
    return result


def test_a_take_is_edited_in_the_list(page: Any, tmp_path: Path) -> None:
    add_take(page, tmp_path, "<img src=x onerror=alert(1)>.wav")
    assert page.execute_script("return sedtalker.take.edited.map((s) => s.emotion)") == ["happy"]
    add_segment(page)
    before = page.execute_script("return sedtalker.take.current.posterior")
    page.execute_script(
        "const e = document.getElementById('take-share'); e.value = 0.5; e.dispatchEvent(new Event('change'))"
    )
    segments(page)
    assert page.execute_script("return sedtalker.take.current.posterior") != before  # the voice is blended in


def test_a_segment_is_dragged_and_the_take_is_saved(page: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains

    add_take(page, tmp_path)
    add_segment(page)
    lane = page.find_element("id", "emotion")
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", lane)
    width, names = lane.size["width"], 12 - lane.size["height"] // 2  # the row of segments, from the lane's middle

    def drag(start: float, end: float) -> None:
        mouse = ActionChains(page).move_to_element_with_offset(lane, round((start / 2 - 0.5) * width), names)
        step = round((end - start) / 4 * width)
        mouse.click_and_hold().move_by_offset(step, 0).move_by_offset(step, 0).release().perform()

    before = page.execute_script("return sedtalker.take.current.posterior")
    drag(1.0, 1.5)
    happy, sad = segments(page)
    assert happy == ["happy", 0, pytest.approx(1.5, abs=0.02)] and sad == ["sad", happy[2], 2]
    assert page.execute_script("return sedtalker.take.current.posterior") != before  # the span is animated again
    drag(0.5, 0.5)  # a click picks the segment
    assert page.execute_script("return sedtalker.take.selected") == 0
    click(page, "undo")
    assert segments(page) == [["happy", 0, 1], ["sad", 1, 2]]
    saved = {}
    for form in ("json", "glb", "csv", "html", "mp4"):
        name, start = page.execute_async_script(
            "const [form, done] = arguments; const link = document.querySelector(`#save a[data-form=${form}]`);"
            "fetch(link.href).then((answer) => answer.arrayBuffer()).then((data) =>"
            " done([link.download, [...new Uint8Array(data).slice(0, 15)]]))",
            form,
        )
        assert name == f"take.{form}"
        saved[form] = bytes(start)
    assert saved["json"].startswith(b"{") and saved["mp4"][4:8] == b"ftyp" and saved["glb"].startswith(b"glTF")
    assert saved["csv"].startswith(b"Timecode") and saved["html"].startswith(b"<!doctype html>")


def test_every_control_is_reached_and_used_by_keyboard(page: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(page).send_keys(*keys).perform()

    add_take(page, tmp_path)
    page.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(60):
        press(Keys.TAB)
        reached.append(page.execute_script("return document.activeElement.id || document.activeElement.textContent"))
    controls = page.execute_script(
        "return [...document.querySelectorAll('button, input, select, a[href]')].filter((e) => e.offsetParent && "
        "!e.disabled && !e.closest('fieldset:disabled')).map((e) => e.id || e.textContent)"
    )
    assert len(controls) > 20 and set(controls) <= set(reached), set(controls) - set(reached)
    page.find_element("css selector", "#segments button").send_keys(Keys.ENTER)
    assert page.execute_script("return sedtalker.take.selected") == 0
    intensity = page.find_element("id", "segment-intensity")
    before = float(intensity.get_attribute("value"))
    intensity.send_keys(Keys.ARROW_RIGHT)
    assert segments(page) and float(intensity.get_attribute("value")) == pytest.approx(before + 0.05)
    page.find_element("id", "back").send_keys(Keys.ENTER)
    page.execute_script("document.getElementById('talk').focus()")
    ActionChains(page).key_down(" ").perform()
    wait_until(page, "sedtalker.connection.state === 'speaking'")
    ActionChains(page).key_up(" ").perform()
    wait_until(page, "sedtalker.connection.state === 'idle'", 30)
    page.execute_script("document.activeElement.blur()")
    ActionChains(page).key_down("t").perform()
    wait_until(page, "sedtalker.connection.state === 'speaking'")
    press(Keys.ESCAPE)
    wait_until(page, "sedtalker.connection.state === 'idle' && sedtalker.weight('jawOpen') === 0", 30)
    ActionChains(page).key_up("t").perform()


def test_names_for_screen_readers_and_phone_width(page: Any) -> None:
    roles = {
        "button",
        "textbox",
        "slider",
        "combobox",
        "spinbutton",
        "link",
        "img",
        "image",
        "region",
        "main",
        "complementary",
    }
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles - {"main"}
    ]
    assert len(named) > 20 and [role for role, name in named if not name.strip()] == []
    live = page.execute_script("return [...document.querySelectorAll('[aria-live]')].map((e) => e.id)")
    assert {"state", "status"} <= set(live)
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert page.execute_script("return document.documentElement.scrollWidth <= 390")
    small = page.execute_script(
        "return [...document.querySelectorAll('#panel button')].filter((e) => e.offsetParent && e.offsetHeight < 36)"
        ".length"
    )
    assert small == 0
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_click_in_the_microphone_is_seen(page: Any) -> None:
    page.execute_script("window.drawn = head.renderer.render; head.renderer.render = () => {}")  # slow without a GPU
    try:
        delays = measure_clicks(page, 8)
    finally:
        page.execute_script("head.renderer.render = window.drawn")
    assert len(delays["clock"]) >= 3
    assert 0 < min(delays["clock"]) < 1000  # the quickest: other processes can delay any of them


def test_nothing_comes_from_elsewhere_and_nothing_is_wrong(page: Any, server: MadeServer) -> None:
    import json

    requested = set()
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requested.add(message["params"]["request"]["url"])
    assert requested and all(url.startswith((server.url, "blob:", "data:")) for url in requested), requested
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []

"""The self-contained page: its content, and its behaviour in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_animation import made_animation

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import MissingExtraError
from sedtalker.export import export_animation
from sedtalker.export.html import html_page
from sedtalker.recipes.browser import open_browser, wait_until

HOSTILE = "<img src=x onerror=alert(1)><!--<script>.wav"
LABELS = ("neutral", "</script><b>glad</b>", "sad")


@pytest.fixture(scope="module")
def animation(tmp_path_factory: pytest.TempPathFactory) -> Animation:
    """Three seconds with HTML in the file name and in the name of an emotion."""
    original = made_animation(tmp_path_factory.mktemp("sound"), 3.0, HOSTILE.replace("/", ""))
    track = original.emotion
    posterior = np.zeros((len(track), 3), np.float32)
    posterior[:, 1] = np.linspace(0, 1, len(track))
    posterior[:, 0] = 1 - posterior[:, 1]
    speech = (track.times < 2.6).astype(np.float32)
    return replace(original, emotion=EmotionTrack(posterior, track.intensity, track.duration, LABELS, speech=speech))


@pytest.fixture(scope="module")
def file(animation: Animation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "a.html"
    export_animation(animation, "html", path)
    return path


def test_nothing_is_downloaded_and_names_are_escaped(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    own = text[: text.index("var three=")] + text[text.rindex("// The viewer:") :]
    own = re.sub(r"[A-Za-z0-9+/=]{200,}", "", own)  # the base64 of head and sound may contain any words
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", own) and "http" not in own.replace("http-equiv", "")
    assert "default-src 'none'" in text
    assert "<img" not in text and "<b>glad" not in text
    assert text.count("</script>") == text.count("<script") == 5


def test_size_without_textures(animation: Animation) -> None:
    from sedtalker.export.glb import encode_glb
    from sedtalker.export.textures import encode_color, encode_normals, encode_roughness

    face = animation.face
    pictures = 0
    for surface in (*face.surfaces, *(item.surface for item in face.attachments.values())):
        encoded = [encode_color(face, surface.material) or (b"",)]
        encoded += [(data(face, surface.material) or b"",) for data in (encode_roughness, encode_normals)]
        pictures += sum(len(picture[0]) for picture in encoded)
    assert sum(map(len, encode_glb(animation))) > pictures > 100_000
    assert sum(map(len, html_page(animation))) - pictures * 4 / 3 < 3e6


def test_without_sound(animation: Animation) -> None:
    silent = "".join(html_page(replace(animation, meta={"face": "default"})))
    assert '"sound":null' in silent and re.search(r'id="sound"></script>', silent)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    try:
        started = open_browser("window-size=480,760", "autoplay-policy=no-user-gesture-required", log=True)
    except MissingExtraError as error:
        pytest.skip(str(error))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def page(browser: Any, file: Path) -> Any:
    browser.get(file.as_uri())
    wait_until(browser, "document.documentElement.dataset.ready === 'true'")
    return browser


def interpolate_weight(animation: Animation, name: str, moment: float) -> float:
    column = animation.blendshapes[:, animation.blendshape_names.index(name)]
    return float(np.interp(moment * animation.fps - 0.5, np.arange(len(column)), column))


@pytest.mark.slow
def test_the_mouth_is_synchronous_with_the_sound(page: Any, animation: Animation) -> None:
    for start in (0.0, 0.5, 1.0):  # a busy machine draws one picture in a second or more
        page.execute_script(f"sedtalker.pause(); sedtalker.seek({start})")
        wait_until(page, f"Math.abs(sedtalker.shown() - {start}) < 0.01")  # not still the time of the round before
        page.execute_script("sedtalker.play()")
        wait_until(page, f"sedtalker.shown() > {start + 0.1}")
        time_shown, weight, audio_time = page.execute_script(
            "return [sedtalker.shown(), sedtalker.weight('jawOpen'), document.getElementById('audio').currentTime]"
        )
        assert weight == pytest.approx(interpolate_weight(animation, "jawOpen", time_shown), abs=0.01)
        # Software drawing is late, but not ahead of the sound, whose reported time lags on a busy machine.
        assert time_shown <= audio_time + 0.4
    page.execute_script("sedtalker.pause()")
    assert page.execute_script("return document.getElementById('audio').paused")


@pytest.mark.slow
def test_seeking_updates_the_head_and_the_plots(page: Any, animation: Animation) -> None:
    page.execute_script("sedtalker.pause(); sedtalker.seek(1.5)")
    wait_until(page, "Math.abs(sedtalker.shown() - 1.5) < 0.01")
    weight = page.execute_script("return sedtalker.weight('mouthSmileLeft')")
    assert weight == pytest.approx(interpolate_weight(animation, "mouthSmileLeft", 1.5), abs=0.01)
    entries = page.execute_script("return [...document.querySelectorAll('#emotions .entry')].map((e) => e.innerText)")
    names = [line.split("\n")[0] for line in entries]
    assert names == [*LABELS, "intensity", "not certain"]  # as text, including the tags
    assert entries[1].split("\n")[1] == "50%"
    painted = page.execute_script(
        "return ['emotion', 'curves'].map((id) => { const c = document.getElementById(id);"
        "return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size; })"
    )
    assert min(painted) > 10
    page.execute_script("document.getElementById('wireframe').click(); document.getElementById('front').click()")


@pytest.mark.slow
def test_the_key_explains_hatching_and_the_line(page: Any, animation: Animation) -> None:
    """Half of the track is likeliest neutral, whose intensity is 0, whatever the frames say."""
    shown = {}
    for moment in (0.6, 2.4, 2.8):
        page.execute_script(f"sedtalker.pause(); sedtalker.seek({moment})")
        wait_until(page, f"Math.abs(sedtalker.shown() - {moment}) < 0.01")
        shown[moment] = page.execute_script(
            "return ['.level output', '.uncertain'].map((name) => document.querySelector(name)).map((node, order) =>"
            "order ? !node.hidden && node.classList.contains('strong') : node.textContent)"
        )
    track = animation.emotion
    assert shown[0.6][0] == "0%" and track.intensity[30] > 0.05
    assert shown[2.4][0] == f"{round(100 * float(track.intensity[120]))}%"
    assert [state for _, state in shown.values()] == [False, False, True]  # no speech after 2.6 s


@pytest.mark.slow
def test_arrow_keys_turn_the_face_that_has_the_focus(page: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    position = "const { x, y, z } = head.camera.position; return [x, y, z]"
    page.execute_script("sedtalker.pause(); sedtalker.seek(1); document.getElementById('front').click()")
    start = np.array(page.execute_script(position))
    view = page.find_element(By.ID, "view")
    view.send_keys(Keys.ARROW_RIGHT * 3)
    assert page.switch_to.active_element == view and view.get_attribute("aria-label")
    assert page.execute_script("return getComputedStyle(document.getElementById('view')).outlineStyle") == "solid"
    turned = np.array(page.execute_script(position))
    target = np.array(page.execute_script("const { x, y, z } = head.controls.target; return [x, y, z]"))
    cosine = (start - target) @ (turned - target) / np.sum((start - target) ** 2)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(15, abs=0.1) and turned[0] > start[0]
    view.send_keys(Keys.ARROW_UP, "+")
    closer = np.array(page.execute_script(position))
    assert closer[1] > turned[1]
    assert np.linalg.norm(closer - target) == pytest.approx(0.9 * np.linalg.norm(start - target), rel=1e-3)
    assert page.execute_script("return sedtalker.time()") == pytest.approx(1, abs=0.001)  # the time stands still
    view.send_keys(Keys.HOME)
    np.testing.assert_allclose(page.execute_script(position), start, atol=1e-6)


@pytest.mark.slow
def test_no_console_messages_no_requests_and_no_horizontal_scrolling(page: Any, file: Path) -> None:
    import json

    assert page.title.startswith("<img") and not page.execute_script("return document.querySelector('img')")
    overflow = page.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("data:", "blob:")) and url != file.as_uri()] == []


@pytest.mark.slow
def test_space_plays_also_after_scrubbing(page: Any) -> None:
    page.execute_script("sedtalker.pause(); sedtalker.seek(0.5); document.getElementById('scrub').focus()")
    scrub = page.find_element("id", "scrub")
    scrub.send_keys(" ")
    wait_until(page, "document.getElementById('play').getAttribute('aria-label') === 'Pause'")
    scrub.send_keys(" ")
    wait_until(page, "document.getElementById('play').getAttribute('aria-label') === 'Play'")
    page.execute_script("sedtalker.seek(1)")
    scrub.send_keys("\ue014")  # arrow right: a frame
    wait_until(page, f"Math.abs(sedtalker.time() - {1 + 1 / 30}) < 0.005")


@pytest.mark.slow
def test_one_frame_is_shown(browser: Any, animation: Animation, tmp_path: Path) -> None:
    weights = np.full((1, 52), 0.25, np.float32)
    still = replace(animation, blendshapes=weights, head=None, emotion=EmotionTrack.neutral(1 / 30), meta={})
    export_animation(still, "html", tmp_path / "still.html")
    browser.get((tmp_path / "still.html").as_uri())
    wait_until(browser, "document.documentElement.dataset.ready === 'true'")
    wait_until(browser, "Math.abs(sedtalker.weight('jawOpen') - 0.25) < 0.001")

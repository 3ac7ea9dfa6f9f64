"""Render the pictures of exports and pages in the README:

    python -m sedtalker.recipes export_pictures -o renders/readme

All show the demo's recording. `page.webp` is the page of `export --to html`; `serve.webp` is the server's page with a
take whose last emotion was edited; `threejs.webp` is the .glb in three.js; `blender.webp` is the .glb in Blender, drawn
by Cycles; `livelink.webp` shows columns of the .csv.

The pages need selenium and Chromium with its driver, the curves matplotlib, and Blender its module `bpy` (PyPI).
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import math
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import MissingExtraError, require
from sedtalker.export import export_animation
from sedtalker.export.html import PAGE_FOLDER, portrait
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.face.framing import FIELD_OF_VIEW
from sedtalker.files import atomic_write
from sedtalker.pipeline import load
from sedtalker.recipes.browser import find_chromium, open_browser, wait_until
from sedtalker.resources import asset

PICTURES = ("page", "serve", "threejs", "blender", "livelink")
OF_PAGES = {"page", "serve", "threejs"}  # drawn by a browser
PAGE_SIZE, SERVE_SIZE, SCENE_SIZE = (1280, 887), (1200, 760), (720, 640)  # pixels
BUST = 1.12  # distance of the cameras of three.js and Blender over the renderer's, to show the shoulders
EDITED_INTENSITY = 0.85  # of the edited segment
WAIT = 600.0  # seconds, at most, for a page on a busy machine

CURVES = {  # columns of the .csv and their colours
    "JawOpen": "#e9ecf0",
    "MouthPucker": "#7fb2f0",
    "MouthSmileLeft": "#f2b84b",
    "BrowDownLeft": "#d8685f",
    "EyeBlinkLeft": "#7cc68d",
    "HeadYaw": "#b79af0",
}
CURVES_FPS = 60.0
BACKDROP, FRAME, TEXT = "#0d1013", "#3a424d", "#c3cad3"

SCENE = """<!doctype html>
<style>body { margin: 0; background: #23272f } canvas { display: block; width: 100vw; height: 100vh }</style>
<canvas id="view"></canvas>
<script>%(three)s</script>
<script>
(async () => {
  const bytes = Uint8Array.from(atob("%(glb)s"), (c) => c.charCodeAt(0));
  const { scene: head, animations } = await new three.GLTFLoader().parseAsync(bytes.buffer, "");
  const scene = new three.Scene();
  const sun = new three.DirectionalLight(0xffffff, 2.2);
  sun.position.set(-1, 2, 3);
  scene.add(head, sun, new three.HemisphereLight(0xffffff, 0x665f5a, 1.6));
  const mixer = new three.AnimationMixer(head);
  mixer.clipAction(animations[0]).play();
  mixer.setTime(%(time)s);
  const [x, y, z] = %(target)s;
  const camera = new three.PerspectiveCamera(%(angle)s, innerWidth / innerHeight, 0.05, 20);
  camera.position.set(x, y, z + %(distance)s);
  camera.lookAt(x, y, z);
  const canvas = document.getElementById("view");
  const renderer = new three.WebGLRenderer({ canvas, antialias: true, preserveDrawingBuffer: true });
  renderer.setClearColor(0x23272f);
  renderer.setSize(innerWidth, innerHeight, false);
  renderer.render(scene, camera);
  document.documentElement.dataset.ready = "true";
})();
</script>
"""


@contextmanager
def browser_of_size(size: tuple[int, int]) -> Iterator[Any]:
    """A browser whose pages have this width and height in pixels, and do not know that WebGL has no GPU."""
    browser = open_browser("disable-gpu-compositing")
    try:
        browser.set_script_timeout(WAIT)
        browser.set_page_load_timeout(WAIT)
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        hide = "WebGL2RenderingContext.prototype.getExtension = ((get) => function (name) {\n"
        hide += "return name === 'WEBGL_debug_renderer_info' ? null : get.call(this, name); })"
        hide += "(WebGL2RenderingContext.prototype.getExtension)"
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": hide})
        yield browser
    finally:
        browser.quit()


def screenshot(browser: Any) -> Image.Image:
    """The page as a picture."""
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def open_moment(animation: Animation, label: str) -> int:
    """Index of the frame of an emotion whose jaw is most open, with open eyes."""
    assert animation.blendshapes is not None  # the default talker moves a rig
    track = animation.emotion
    times = (np.arange(len(animation.blendshapes)) + 0.5) / animation.fps
    rows = np.minimum((times * track.frame_rate).astype(int), len(track) - 1)
    shown = (track.posterior.argmax(1) == track.labels.index(label)) & ~track.abstained
    blink = animation.blendshapes[:, ARKIT_NAMES.index("eyeBlinkLeft")]
    return int(np.where(shown[rows], animation.blendshapes[:, JAW_OPEN] - blink, -2).argmax())


def page_picture(animation: Animation) -> Image.Image:
    """The HTML page at a moment of anger."""
    seconds = (open_moment(animation, "angry") + 0.5) / animation.fps
    with tempfile.TemporaryDirectory() as folder, browser_of_size(PAGE_SIZE) as browser:
        path = Path(folder, "demo.html")
        export_animation(animation, "html", path)
        browser.get(path.as_uri())
        wait_until(browser, "document.documentElement.dataset.ready === 'true'", WAIT)
        browser.execute_script(f"sedtalker.seek({seconds})")
        wait_until(browser, f"Math.abs(sedtalker.shown() - {seconds}) < 0.01", WAIT)
        return screenshot(browser)


def serve_picture(track: EmotionTrack, audio: Path) -> Image.Image:
    """The server's page with a take whose last segment with an emotion was made stronger, and is selected."""
    segments = track.segments
    edited = [index for index, segment in enumerate(segments) if segment.emotion != "neutral"][-1]
    seconds = 0.75 * segments[edited].start + 0.25 * segments[edited].end
    with run_server() as url, browser_of_size(SERVE_SIZE) as browser:
        browser.get(url)
        wait_until(browser, "document.documentElement.dataset.ready === 'true' && sedtalker.connection.ready", WAIT)
        browser.execute_script("pace.step = STEPS.length")  # pictures of full quality, however slow they are
        browser.find_element("id", "file").send_keys(str(audio.resolve()))
        wait_until(browser, "sedtalker.take.current !== null && document.querySelector('#segments button')", WAIT)
        browser.execute_script(
            "document.querySelectorAll('#segments button')[arguments[0]].click();"
            "const e = document.getElementById('segment-intensity'); e.value = arguments[1];"
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, { bubbles: true }))",
            edited,
            EDITED_INTENSITY,
        )
        wait_until(browser, "sedtalker.take.current.sequence === sedtalker.take.sequence", WAIT)
        browser.execute_script(f"sedtalker.seek({seconds})")
        wait_until(browser, f"Math.abs(sedtalker.shown() - {seconds}) < 0.02", WAIT)
        return screenshot(browser)


@contextmanager
def run_server() -> Iterator[str]:
    """`sedtalker serve` in a process of its own; yields its address."""
    command = [sys.executable, "-m", "sedtalker", "serve", "--port", "0", "--a2f-port", "0", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def bust_camera(animation: Animation) -> dict[str, Any]:
    """Target of a camera in metres, and its distance."""
    view = portrait(animation.face)
    return {**view, "distance": BUST * view["distance"]}


def threejs_picture(animation: Animation) -> Image.Image:
    """The .glb in three.js, with the lights of a simple scene, at a moment of happiness."""
    view, index = bust_camera(animation), open_moment(animation, "happy")
    with tempfile.TemporaryDirectory() as folder, browser_of_size(SCENE_SIZE) as browser:
        glb, page = Path(folder, "demo.glb"), Path(folder, "scene.html")
        export_animation(animation, "glb", glb)
        fields = {
            "three": (PAGE_FOLDER / "three.min.js").read_text(encoding="utf-8"),
            "glb": b64encode(glb.read_bytes()).decode(),
            "time": index / animation.fps,
            "angle": FIELD_OF_VIEW,
            **view,
        }
        page.write_text(SCENE % fields, encoding="utf-8")
        browser.get(page.as_uri())
        wait_until(browser, "document.documentElement.dataset.ready === 'true'", WAIT)
        return screenshot(browser)


def blender_picture(animation: Animation) -> Image.Image:
    """The .glb in Blender, imported as the README says, with two lamps, at a moment of happiness.

    Raises:
        MissingExtraError: Blender's module is not installed.
    """
    try:
        bpy: Any = importlib.import_module("bpy")
    except ImportError as error:
        raise MissingExtraError(f"bpy cannot be imported ({error}). Install it with: pip install bpy") from error
    view = bust_camera(animation)
    x, y, z = view["target"]
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps = round(animation.fps)
    with tempfile.TemporaryDirectory() as folder:
        glb, drawn = Path(folder, "demo.glb"), Path(folder, "demo.png")
        export_animation(animation, "glb", glb)
        bpy.ops.import_scene.gltf(filepath=str(glb))
        scene.frame_set(open_moment(animation, "happy"))
        camera = bpy.data.cameras.new("camera")
        camera.sensor_fit, camera.angle = "VERTICAL", math.radians(FIELD_OF_VIEW)
        scene.camera = _place(bpy, "camera", camera, (x, -z - view["distance"], y), (math.pi / 2, 0, 0))
        for place, turn, watts, size in (
            ((x - 0.7, -z - 0.9, y + 0.6), (math.radians(60), 0, math.radians(-38)), 18, 0.5),
            ((x + 0.9, -z - 0.5, y + 0.1), (math.radians(85), 0, math.radians(60)), 8, 0.6),
        ):
            lamp = bpy.data.lights.new("lamp", "AREA")
            lamp.energy, lamp.size = watts, size
            _place(bpy, "lamp", lamp, place, turn)
        scene.world = bpy.data.worlds.new("world")
        scene.world.use_nodes = True
        scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.13, 0.14, 0.16, 1)
        scene.render.engine = "CYCLES"
        scene.cycles.samples, scene.cycles.use_denoising = 32, True
        scene.cycles.transparent_max_bounces = 64  # hair is many transparent layers
        scene.view_settings.view_transform = "Standard"
        scene.render.resolution_x, scene.render.resolution_y = SCENE_SIZE
        scene.render.filepath = str(drawn)
        bpy.ops.render.render(write_still=True)
        return Image.open(drawn).convert("RGB")


def _place(bpy: Any, name: str, data: Any, place: tuple[float, float, float], turn: tuple[float, float, float]) -> Any:
    """Add a camera or a lamp to Blender's scene: x to the right, y away from the viewer, z up, metres and radians."""
    thing = bpy.data.objects.new(name, data)
    thing.location, thing.rotation_euler = place, turn
    bpy.context.scene.collection.objects.link(thing)
    return thing


def livelink_picture(animation: Animation) -> Image.Image:
    """Columns of the .csv over its timecodes. Raises MissingExtraError without matplotlib."""
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "demo.csv")
        export_animation(animation, "csv", path)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7.2, 4.6), layout="constrained", facecolor=BACKDROP)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(len(CURVES), 1, sharex=True))
    for axis, (name, color) in zip(axes, CURVES.items(), strict=True):
        values = np.array([float(row[name]) for row in rows])
        axis.plot(values, color=color, linewidth=1.4)
        axis.fill_between(np.arange(len(values)), values, color=color, alpha=0.3, linewidth=0)
        axis.set_ylabel(name, color=TEXT, rotation=0, ha="right", va="center", fontsize=10)
        axis.set_facecolor(BACKDROP)
        axis.set_yticks([])
        axis.tick_params(colors=TEXT, labelsize=8)
        axis.spines[:].set_color(FRAME)
        axis.margins(x=0)
    ticks = range(0, len(rows), round(2 * animation.fps))
    axes[-1].set_xticks(ticks, [row["Timecode"].split(".")[0] for row in (rows[tick] for tick in ticks)])
    figure.savefig(drawn := io.BytesIO(), format="png", dpi=100)
    return Image.open(drawn).convert("RGB")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("renders/readme"), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=PICTURES, help="pictures to render (default: all)")


def run(arguments: argparse.Namespace) -> None:
    """Render the pictures. Raises MissingExtraError, before any work, without the browser that some of them need."""
    names = arguments.only or PICTURES
    if OF_PAGES.intersection(names):
        find_chromium()
    talker, audio = load(device="cpu"), asset("demo.wav")
    animation = talker.animate(audio)
    pictures: dict[str, Callable[[], Image.Image]] = {
        "page": lambda: page_picture(animation),
        "serve": lambda: serve_picture(animation.emotion, audio),
        "threejs": lambda: threejs_picture(animation),
        "blender": lambda: blender_picture(animation),
        "livelink": lambda: livelink_picture(talker.animate(audio, fps=CURVES_FPS)),
    }
    for name in names:
        picture = pictures[name]()
        with atomic_write(arguments.output / f"{name}.webp") as temp_path:
            picture.save(temp_path, "webp", quality=85)

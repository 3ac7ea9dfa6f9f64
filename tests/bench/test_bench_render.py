"""Cost of a rendered frame. Run with: pytest tests/bench/test_bench_render.py -n 0 -s

Wall times vary on a shared machine; ratios are of CPU seconds measured in one process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.render import pyrender
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.yuv import to_yuv420

pytest.importorskip("pytest_benchmark")
SIZE = 512


def flame_size_face() -> Face:
    """A bare head of about as many vertices as FLAME's 5,023: the default one without teeth and tongue."""
    face = load_face("default")
    hidden = np.concatenate([face.parts[name] for name in ("teeth_upper", "teeth_lower", "tongue")])
    used, faces = np.unique(face.faces[~np.isin(face.faces, hidden).any(1)], return_inverse=True)
    return Face("flame-size", face.template[used], faces.reshape(-1, 3).astype(np.int32))


def cpu_milliseconds(draw: Callable[[], object], times: int) -> float:
    """The least CPU time of some calls, all threads together."""
    draw()
    spent = []
    for _ in range(times):
        start = time.process_time()
        draw()
        spent.append(time.process_time() - start)
    return min(spent) * 1000


@pytest.mark.parametrize("quality", ["standard", "fine"])
def test_bench_default_head(benchmark, quality):
    face = load_face("default")
    renderer = SoftRenderer(face, SIZE, SIZE, quality)
    frame = benchmark(renderer.frame, face.template)
    assert frame.shape == (SIZE, SIZE, 3)


def test_bench_flame_size_mesh(benchmark):
    face = flame_size_face()
    renderer = SoftRenderer(face, SIZE, SIZE)
    assert benchmark(renderer.frame, face.template).any()


def test_bench_yuv(benchmark):
    frame = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    out = np.empty((SIZE * 3 // 2, SIZE), np.uint8)
    benchmark(to_yuv420, frame, out)
    assert out.any()


def test_ratios_to_pyrender(capsys, monkeypatch):
    """Ours against pyrender with a context kept, and with a renderer for each frame as the field's peers do."""
    works, reason = pyrender.probe()
    if not works:
        pytest.skip(reason)
    if "DISPLAY" not in os.environ:
        monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")  # for the peers' renderers; ours restores the environment
    face = flame_size_face()
    ours = SoftRenderer(face, SIZE, SIZE)
    kept = pyrender.PyrenderRenderer(face, SIZE, SIZE)
    a_frame = cpu_milliseconds(lambda: ours.frame(face.template), 20)
    a_kept = cpu_milliseconds(lambda: kept.frame(face.template), 5)
    a_peer = cpu_milliseconds(lambda: peers_frame(face), 5)
    assert min(ours.frame(face.template).std(), peers_frame(face).std()) > 10  # all of them drew a face
    with capsys.disabled():
        print(f"\n{len(face.template)} vertices at {SIZE} x {SIZE}, {reason}, CPU ms a frame:", end=" ")
        print(f"ours {a_frame:.1f}, kept context {a_kept:.1f}, renderer a frame {a_peer:.1f};", end=" ")
        print(f"ratios {a_kept / a_frame:.1f} and {a_peer / a_frame:.1f}")


def peers_frame(face: Face) -> np.ndarray:
    """A frame the peers' way: a mesh, a scene and an off-screen renderer of its own."""

    def draw() -> np.ndarray:
        import pyrender as gl
        import trimesh

        scene = gl.Scene(ambient_light=[0.2, 0.2, 0.2], bg_color=[0, 0, 0])
        scene.add(gl.Mesh.from_trimesh(trimesh.Trimesh(face.template, face.faces, process=False), smooth=True))
        pose = np.eye(4)
        pose[:3, 3] = face.template.mean(0) + np.array([0, 0, 1.0])
        scene.add(gl.PerspectiveCamera(yfov=np.radians(20)), pose=pose)
        for x in (-1.0, 1.0):
            pose = pose.copy()
            pose[0, 3] = x
            scene.add(gl.PointLight(color=np.ones(3), intensity=3.0), pose=pose)
        renderer = gl.OffscreenRenderer(SIZE, SIZE)
        color, _ = renderer.render(scene)
        renderer.delete()
        return color

    return pyrender.run_in_opengl_thread(draw)

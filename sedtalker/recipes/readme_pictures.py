"""Render the pictures of the README: `python -m sedtalker.recipes readme_pictures -o renders/readme`.

`demo.webp` is the demo's video; `emotions.webp` shows one frame of a sentence for each emotion at three intensities;
`expressions.webp` shows six emotions at full intensity on all heads (`expressions_before.webp` is that of the first
version, and is kept); `people.webp` shows the identities at rest and speaking; `closeups.webp` shows eyes and mouth at
both qualities;
`words.webp` shows the demo's last sentence frame by frame with its words and phones (`sedtalker.data.alignment`);
`avatar.webp` shows a head that was read from a .glb.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, Samples, load_audio
from sedtalker.data.alignment import Aligner
from sedtalker.demux import ffmpeg_name
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.export import export_animation
from sedtalker.face.action_units import emotion_weights
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.assets import identities, load_face
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import SILENCE, Phone
from sedtalker.pipeline import Talker, load
from sedtalker.recipes.phone_sheet import mouth_camera
from sedtalker.render.animation_video import render_animation
from sedtalker.render.camera import front_camera
from sedtalker.render.config import QUALITIES
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.views import grid
from sedtalker.resources import asset

Bytes = NDArray[np.uint8]

LEVELS = (1 / 3, 2 / 3, 1.0)
SIDE = 288  # pixels of one picture of a sheet
SMALL_SIDE = 200  # of `expressions.webp`, which has thirty
DEMO_WIDTH, DEMO_FPS = 320, 15.0
LAST_SENTENCE = "The airplane is almost full."  # of the demo
WORDS_FPS, WORDS_COLUMNS = 14.0, 8
AVATAR = "woman_asian"
AVATAR_STARTS, AVATAR_SPAN = (15, 75, 150, 210), 45  # frames in each of which the mouth is open
FIRST_SECONDS = 3.5  # of the demo, for the sheets of single frames
PICTURES = ("emotions", "expressions", "people", "closeups", "words", "avatar", "demo")
EDGE = 0.18  # seconds around a sentence


def speaking_moment(animation: Animation, share: float) -> int:
    """Index of the frame whose jaw opening is at this quantile of all frames."""
    assert animation.blendshapes is not None  # the default talker moves a rig
    jaw = animation.blendshapes[:, animation.blendshape_names.index("jawOpen")]
    return int(np.argsort(jaw, kind="stable")[int(share * (len(jaw) - 1))])


def first_sentence(audio: Path) -> tuple[Samples, int]:
    """The samples of a recording's first seconds, and their rate."""
    return load_audio(audio)[: round(FIRST_SECONDS * SAMPLE_RATE)], SAMPLE_RATE


def emotion_sheet(talker: Talker, audio: tuple[Samples, int]) -> Bytes:
    """Every emotion but neutral in a column, its intensities downwards, at the same moment of the same sentence."""
    moment = speaking_moment(talker.animate(audio, emotion="neutral", still=True), 0.8)
    face = load_face()
    renderer = SoftRenderer(face, SIDE, SIDE, "fine")
    pictures, titles = [], []
    for level in LEVELS:
        for label in LABELS[1:]:
            animation = talker.animate(audio, emotion=f"{label}:{level}", still=True)
            pictures.append(renderer.frame(next(animation.frames(moment))))
            titles.append(f"{label} {level:.2f}")
    return grid(pictures, len(LABELS) - 1, titles)


def expressions_sheet(talker: Talker, audio: tuple[Samples, int]) -> Bytes:
    """Every head in a row, its emotions to the right, at the same moment of the same sentence."""
    moment = speaking_moment(talker.animate(audio, emotion="neutral", still=True), 0.8)
    labels = [label for label in LABELS[1:] if label != "upset"]  # as in `expressions_before.webp`
    pictures = []
    for name in identities():
        renderer = SoftRenderer(load_face(name), SMALL_SIDE, SMALL_SIDE, "fine")
        for label in labels:
            animation = talker.animate(audio, emotion=f"{label}:1", face=name, still=True)
            pictures.append(renderer.frame(next(animation.frames(moment))))
    return grid(pictures, len(labels), labels)


def people_sheet(talker: Talker, audio: tuple[Samples, int]) -> Bytes:
    """Every identity at rest, and below it a happy speaking frame."""
    rest, speaking = [], []
    for name in identities():
        animation = talker.animate(audio, emotion="happy:0.8", face=name, still=True)
        renderer = SoftRenderer(animation.face, SIDE, SIDE, "fine")
        rest.append(renderer.frame(animation.template))
        speaking.append(renderer.frame(next(animation.frames(speaking_moment(animation, 0.9)))))
    return grid(rest + speaking, len(rest), list(identities()))


def avatar_sheet(talker: Talker, audio: Path) -> Bytes:
    """A packaged head as an avatar's file with other names of its shapes, and moments of it speaking."""
    head = load_face(AVATAR)
    still = Animation(
        head.template, head.faces, 30.0, EmotionTrack.neutral(1 / 30), np.zeros((1, 52), np.float32),
        head.blendshape_names, head=np.eye(4, dtype=np.float32)[None], rig=head,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder, "avatar.glb")
        export_animation(still, "glb", path)
        face = load_face(path)
        animation = talker.animate(audio, face=face)
        renderer = SoftRenderer(face, SIDE, SIDE, "fine", front_camera(face))
        assert animation.blendshapes is not None and animation.head is not None
        weights = animation.blendshapes
        opening = weights[:, JAW_OPEN] - weights[:, MOUTH_CLOSE] - weights[:, ARKIT_NAMES.index("eyeBlinkLeft")]
        moments = [int(opening[start : start + AVATAR_SPAN].argmax()) + start for start in AVATAR_STARTS]
        pictures = [renderer.frame(next(animation.frames(k, k + 1)), animation.head[k]) for k in moments]
    return grid(pictures, len(pictures))


def closeup_sheet() -> Bytes:
    """Eyes and mouth of the default head, below them at quality "fine"."""
    face = load_face()
    eyes = (face.template[face.parts["eye_left"]].mean(0) + face.template[face.parts["eye_right"]].mean(0)) / 2
    x, y, z = eyes.tolist()
    near_eyes = replace(front_camera(face), target=(x, y + 0.008, z), distance=0.40)
    shown = [(near_eyes, label) for label in ("neutral", "happy", "angry", "surprise")]
    shown += [(mouth_camera(face), label) for label in ("happy", "disgust", "fear")]
    pictures = []
    for quality in QUALITIES:
        for camera, label in shown:
            weights = np.clip(emotion_weights()[LABELS.index(label)], 0, 1)
            pictures.append(SoftRenderer(face, SIDE, SIDE, quality, camera).frame(face.pose(weights)))
    return grid(pictures, len(shown), [f"{label}, {quality}" for quality in QUALITIES for _, label in shown])


def words_sheet(talker: Talker, audio: Path) -> Bytes:
    """Frames of the demo's last sentence with their word and phone."""
    samples = load_audio(audio)
    spoken = np.flatnonzero(detect_speech(loudness(samples), bridge=0.25))
    first = spoken[np.flatnonzero(np.diff(spoken, prepend=-2) > 1)[-1]]
    start, stop = ((frame / FRAME_RATE + edge) * SAMPLE_RATE for frame, edge in ((first, -EDGE), (spoken[-1], EDGE)))
    sentence = samples[round(start) : round(stop)]
    phones = Aligner().align(sentence, LAST_SENTENCE) or ()
    animation = talker.animate((sentence, SAMPLE_RATE), fps=WORDS_FPS, still=True)
    face = load_face()
    renderer = SoftRenderer(face, SIDE, SIDE, "fine", mouth_camera(face))
    pictures = [renderer.frame(vertices) for vertices in animation.frames()]
    return grid(pictures, WORDS_COLUMNS, [_word_at(phones, (i + 0.5) / WORDS_FPS) for i in range(len(pictures))])


def _word_at(phones: Sequence[Phone], time: float) -> str:
    """Word and phone at a time in seconds; empty in silence."""
    phone = next((phone for phone in phones if phone.start <= time < phone.end), None)
    return f"{phone.word} /{phone.name.lower()}/" if phone is not None and phone.name != SILENCE else ""


def demo_frames(talker: Talker, audio: Path) -> list[Image.Image]:
    """Frames of the demo's video with its emotion strip, reduced in size."""
    import av

    animation = talker.animate(audio, fps=DEMO_FPS)
    with TemporaryDirectory() as folder:
        video = Path(folder, "demo.mp4")
        render_animation(animation, video)
        with av.open(ffmpeg_name(video)) as container:
            frames = [frame.to_image() for frame in container.decode(video=0)]
    height = round(frames[0].height * DEMO_WIDTH / frames[0].width)
    return [frame.resize((DEMO_WIDTH, height), Image.Resampling.LANCZOS) for frame in frames]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("renders/readme"),
        help="default: renders/readme",
    )

    parser.add_argument("--only", nargs="+", choices=PICTURES, help="pictures to render (default: all)")


def run(arguments: argparse.Namespace) -> None:
    folder = arguments.output
    talker, audio = load(device="cpu"), asset("demo.wav")
    sentence = first_sentence(audio)
    sheets: dict[str, Callable[[], Bytes]] = {
        "emotions": lambda: emotion_sheet(talker, sentence),
        "expressions": lambda: expressions_sheet(talker, sentence),
        "people": lambda: people_sheet(talker, sentence),
        "closeups": closeup_sheet,
        "words": lambda: words_sheet(talker, audio),
        "avatar": lambda: avatar_sheet(talker, audio),
    }
    chosen = arguments.only or PICTURES
    for name in sheets.keys() & set(chosen):
        with atomic_write(folder / f"{name}.webp") as temp_path:
            Image.fromarray(sheets[name]()).save(temp_path, quality=82)
    if "demo" not in chosen:
        return
    frames = demo_frames(talker, audio)
    with atomic_write(folder / "demo.webp") as temp_path:
        options: Any = {"duration": round(1000 / DEMO_FPS), "loop": 0, "quality": 60, "method": 4}
        frames[0].save(temp_path, save_all=True, append_images=frames[1:], **options)

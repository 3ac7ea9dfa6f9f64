"""Animations: vertices of a face over time, and their file.

The file is an `.npz` that `numpy.load(path, allow_pickle=False)` reads; `README.md` lists its arrays.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.curves import resample
from sedtalker.errors import AnimationError, SEDTalkerError, SEDTalkerWarning, as_number, as_path
from sedtalker.face.orientation import is_mesh_size, longest_side
from sedtalker.files import atomic_write, read_array_header
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.providers import provider

if TYPE_CHECKING:
    from sedtalker.emotion.track import EmotionTrack
    from sedtalker.face.rig import Face

Float = NDArray[np.float32]

DENSE_SECONDS = 120.0  # longer animations of a rig are saved without vertices, which are 7 GB an hour
CHUNK_FRAMES = 128  # frames posed at a time
MAX_FPS = 1000.0
_AGAIN = "Make it again with: sedtalker animate"
_MAKE = "Make it with: sedtalker animate, or store vertices (T, V, 3), faces, template and fps"
_MOTIONS = ("vertices", "blendshapes")  # arrays of the motion; one is needed
_NEEDED = {"template", "faces", "fps"}
_EMOTION = {"posterior", "intensity", "labels"}  # all or none, of a face without emotion
_TEXTS = ("audio", "audio_sha256", "face", "face_source", "model")  # entries of `meta` that are texts


@dataclass(frozen=True, repr=False)
class Animation:
    """Face motion at `fps` frames a second; frame i shows the time (i + 0.5) / fps.

    Either `blendshapes` (T, 52) of a rigged face, or `dense` (T, V, 3) vertices in metres, or both.
    """

    template: Float  # (V, 3) metres, the face at rest
    faces: NDArray[np.int32]  # (F, 3)
    fps: float
    emotion: EmotionTrack
    blendshapes: Float | None = None  # (T, 52) weights 0..1
    blendshape_names: tuple[str, ...] = ()
    dense: Float | None = None  # (T, V, 3) metres
    head: Float | None = None  # (T, 4, 4) rigid motion, not contained in the vertices
    meta: dict[str, Any] = field(default_factory=dict)  # plain types: source audio, model, face, seed, versions
    rig: Face | None = field(default=None, repr=False, compare=False)  # the face that poses `blendshapes`
    file: Path | None = field(default=None, compare=False)  # that it was loaded from

    def __repr__(self) -> str:
        """One line; the arrays would fill the screen of an interactive session."""
        face = self.meta.get("face") or "mesh"
        return f"<Animation of {face}: {len(self)} frames, {self.fps:g} fps, {len(self.template)} vertices>"

    def __len__(self) -> int:
        """Number of frames."""
        motion = self.dense if self.dense is not None else self.blendshapes
        return 0 if motion is None else len(motion)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self) / self.fps

    @cached_property
    def face(self) -> Face:
        """The animated face: `rig`, the face named in `meta`, or a mesh of template and faces."""
        from sedtalker.face.rig import Face

        if self.rig is not None:
            return self.rig
        name, source = self.meta.get("face"), self.meta.get("face_source")
        if name and self.blendshapes is not None:
            from sedtalker.face.assets import DEFAULT, identities, load_face

            if source is not None:
                return self._load_source(str(source))
            face = load_face(name if name in identities() else DEFAULT)  # a user's mesh has the default rig
            if np.array_equal(face.faces, self.faces) and face.blendshape_names == self.blendshape_names:
                return replace(face, name=str(name), template=self.template)
        return Face(name=str(name or "mesh"), template=self.template, faces=self.faces)

    def _load_source(self, source: str) -> Face:
        """Load the avatar or head that the animation was made for, if it is still the same."""
        from sedtalker.face.assets import load_face

        try:
            face = load_face(source)
        except SEDTalkerError as error:
            raise AnimationError(f"the face of this animation was moved: {source}. Name it with --face") from error
        if not np.array_equal(face.faces, self.faces) or face.blendshape_names != self.blendshape_names:
            raise AnimationError(f"the face of this animation was changed: {source}. Make the animation again")
        return face

    @cached_property
    def vertices(self) -> Float:
        """(T, V, 3) metres, all at once; `frames` yields them in constant memory."""
        if self.dense is not None:
            return self.dense
        vertices, start = np.empty((len(self), *self.template.shape), np.float32), 0
        for chunk in self._chunks(0, len(self)):
            vertices[start : start + len(chunk)] = chunk
            start += len(chunk)
        return vertices

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Float]:
        """Yield vertices (V, 3) in metres, frame by frame."""
        for chunk in self._chunks(start, len(self) if stop is None else min(stop, len(self))):
            yield from chunk

    def _chunks(self, start: int, stop: int) -> Iterator[Float]:
        for first in range(start, stop, CHUNK_FRAMES):
            last = min(first + CHUNK_FRAMES, stop)
            if self.dense is not None:
                yield self.dense[first:last]
            elif self.blendshapes is not None:
                yield self.face.pose(self.blendshapes[first:last])

    def to_trimesh(self, frame: int) -> Any:
        """One frame as a `trimesh.Trimesh` (needs the extra `mesh`)."""
        return provider("to_trimesh")(self, frame)

    def _repr_html_(self) -> str:
        """HTML for notebooks: a page that plays the animation."""
        html: str = provider("animation_html")(self)
        return html

    def save(self, path: Path | str, dense: bool | None = None) -> None:
        """Write the `.npz`; it appears when it is complete.

        `dense` includes the vertices of a rig; None: up to `DENSE_SECONDS`.

        Raises:
            SEDTalkerError: it cannot be written, or the name is that of another format.
        """
        if (suffix := Path(path).suffix) and suffix.lower() != ".npz":
            raise AnimationError(
                f"an animation is saved as .npz, not as {suffix}: {path}. "
                "sedtalker render makes videos and pictures of it, sedtalker export other formats"
            )
        if dense is None:
            dense = self.blendshapes is None or self.duration <= DENSE_SECONDS
        posterior, intensity = self.emotion.at_rate(self.fps, len(self))
        arrays: dict[str, Any] = {
            "faces": self.faces.astype(np.int32),
            "template": self.template.astype(np.float32),
            "fps": np.float64(self.fps),
            "posterior": posterior,
            "intensity": intensity,
            "labels": np.array(self.emotion.labels),
            "meta": np.array(json.dumps(self.meta)),
        }
        if self.emotion.speech is not None:
            arrays["speech"] = resample(self.emotion.speech, self.emotion.frame_rate, self.fps, len(self))
        if dense:
            arrays["vertices"] = self.vertices
        if self.blendshapes is not None:
            arrays["blendshapes"] = self.blendshapes.astype(np.float32, copy=False)
            arrays["blendshape_names"] = np.array(self.blendshape_names)
        if self.head is not None:
            arrays["head"] = self.head.astype(np.float32, copy=False)
        with atomic_write(path) as temp_path, temp_path.open("wb") as file:  # numpy would add a suffix to a name
            np.savez(file, **arrays)


def load_animation(path: Path | str) -> Animation:
    """Read an `.npz` of `Animation.save`.

    Raises:
        AnimationError: the file is missing or is not an animation, its arrays do not fit each other, or contain NaN.

    Warns:
        SEDTalkerWarning: the face is too small or too large to be in metres.
    """
    from sedtalker.emotion.track import EmotionTrack

    path = as_path(path, "an animation", AnimationError)
    if not path.is_file():
        if path.is_dir():
            raise AnimationError(f"a folder, not an animation: {path}. Name an .npz file in it")
        raise AnimationError(f"no such animation: {path}. Check the path")
    try:
        _check_shapes(_read_shapes(path), path)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        fps = as_number(arrays["fps"], "fps")
        if not 0 < fps <= MAX_FPS:
            raise SEDTalkerError(f"{fps:g} frames a second: more than 0 and at most {MAX_FPS:g} are possible")
        meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
        emotion = arrays if "labels" in arrays else _neutral(len(arrays[_motion_of(arrays)]))
        animation = Animation(
            template=arrays["template"],
            faces=arrays["faces"],
            fps=fps,
            emotion=EmotionTrack(
                posterior=emotion["posterior"],
                intensity=emotion["intensity"],
                labels=tuple(str(label) for label in emotion["labels"]),
                frame_rate=fps,
                duration=len(emotion["intensity"]) / fps,
                audio=meta.get("audio"),
                speech=arrays.get("speech"),
            ),
            blendshapes=arrays.get("blendshapes"),
            blendshape_names=tuple(str(name) for name in arrays.get("blendshape_names", ())),
            dense=arrays.get("vertices"),
            head=arrays.get("head"),
            meta=meta,
            file=path.absolute(),
        )
    except AnimationError:
        raise
    except SEDTalkerError as error:
        raise AnimationError(f"a broken animation: {path} ({error}). {_AGAIN}") from error
    except Exception as error:  # zip, numpy and JSON raise errors of many types
        raise AnimationError(
            f"not an animation file: {path} (it does not have the arrays of an animation). {_MAKE}"
        ) from error
    _check_values(animation, path)
    return animation


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays by name, from their headers; no array is read.

    Raises:
        AnimationError: an array is larger in its header than in the file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, dtype = read_array_header(file)
            size = math.prod(shape) * dtype.itemsize
            if size > member.file_size:
                raise AnimationError(f"a broken animation: {path} ({member.filename} claims {size} bytes). {_AGAIN}")
            shapes[member.filename.removesuffix(".npy")] = shape
    return shapes


def _check_shapes(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Check that the arrays are there and fit each other, before memory is allocated."""
    if not shapes.keys() & _NEEDED:
        raise AnimationError(f"not an animation file: {path} (it does not have the arrays of an animation). {_MAKE}")
    needed = _NEEDED | (_EMOTION if shapes.keys() & _EMOTION else set())
    missing = sorted(needed - shapes.keys())
    if not shapes.keys() & set(_MOTIONS):
        missing.append("vertices or blendshapes")
    if missing:
        raise AnimationError(f"not an animation file: {path} (no array {', '.join(missing)}). {_MAKE}")
    count, vertices, labels = shapes[_motion_of(shapes)][:1], shapes["template"][:1], shapes.get("labels", ())[:1]
    expected = {
        "template": (*vertices, 3),
        "faces": (*shapes["faces"][:1], 3),
        "fps": (),
        "intensity": count,
        "posterior": count + labels,
        "labels": labels,
        "speech": count,
        "vertices": (*count, *vertices, 3),
        "blendshapes": count + shapes.get("blendshape_names", ())[:1],
        "head": (*count, 4, 4),
    }
    for name, shape in expected.items():
        if shapes.get(name, shape) != shape:
            raise AnimationError(
                f"arrays that do not fit each other: {path} ({name} is {shapes[name]}, not {shape}). {_AGAIN}"
            )


def _motion_of(arrays: Collection[str]) -> str:
    """The name of the array that has the motion."""
    return next(name for name in _MOTIONS if name in arrays)


def _neutral(count: int) -> dict[str, NDArray[Any]]:
    """The arrays of the emotion of frames without one."""
    posterior = np.tile(np.eye(len(LABELS), dtype=np.float32)[NEUTRAL], (count, 1))
    return {"posterior": posterior, "intensity": np.zeros(count, np.float32), "labels": np.array(LABELS)}


def _check_values(animation: Animation, path: Path) -> None:
    """Check types and values of the arrays."""
    arrays = (animation.template, animation.blendshapes, animation.dense, animation.head)
    numbers = [array for array in arrays if array is not None]
    faces, names, meta = animation.faces, animation.blendshape_names, animation.meta
    wrong = any(array.dtype.kind != "f" for array in numbers) or faces.dtype.kind not in "iu"
    if wrong or any(not isinstance(meta.get(name), str | None) for name in _TEXTS):
        raise AnimationError(f"arrays of the wrong type: {path}. {_AGAIN}")
    if not all(np.isfinite([array.min(initial=0), array.max(initial=0)]).all() for array in numbers):
        raise AnimationError(f"NaN or infinity in the arrays: {path}. {_AGAIN}")
    if not faces.size or not 0 <= int(faces.min()) <= int(faces.max()) < len(animation.template):
        raise AnimationError(f"no triangles, or triangles of vertices that are missing: {path}. {_AGAIN}")
    if len({*names}) < len(names):
        raise AnimationError(f"two blendshapes of the same name: {path}. {_AGAIN}")
    if not is_mesh_size(size := longest_side(animation.template)):
        text = f"the face is {size:.3g} m large: {path}. Scale its vertices and template to metres"
        warnings.warn(text, SEDTalkerWarning, stacklevel=3)

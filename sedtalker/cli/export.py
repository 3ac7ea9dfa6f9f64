"""`sedtalker export`: an animation file -> the formats of other tools."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.cli.options import RESULTS, add_sign, add_texture, any_path, real
from sedtalker.errors import UsageError, one_line
from sedtalker.export import FORMATS, PLAYED, SEALED, default_path

if TYPE_CHECKING:
    from sedtalker.animation import Animation

_TO_HELP = (
    "glb: glTF with morph targets, textures and motion; html: a page that plays it, offline; csv: Live Link Face "
    "columns; json: weight curves by name; vrma: expressions and head for VRM avatars; usd: UsdSkel blendshapes (needs "
    "usd-core); obj, ply: numbered meshes; npy: (T, V, 3) vertices"
)


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "export", parents=[common], help="an animation -> formats of other tools", description=__doc__
    )
    parser.add_argument("animation", type=any_path, metavar="ANIM", help="an .npz written by sedtalker animate")
    parser.add_argument("--to", choices=FORMATS, required=True, help=_TO_HELP)
    parser.add_argument(
        "-o",
        "--output",
        type=any_path,
        metavar="PATH",
        help="file, or a folder for a file named as the animation; for obj and ply the folder of the meshes (default: "
        "next to the animation)",
    )
    parser.add_argument(
        "--fps", type=real(1, 240), metavar="N", help="frames per second, such as 60 (default: the animation's)"
    )
    parser.add_argument(
        "--audio",
        type=any_path,
        metavar="FILE",
        help="its audio (default: the recording that the animation was made from)",
    )
    parser.add_argument(
        "--basis",
        metavar="NAME|DIR",
        help="fit weights of these shapes to the vertices first: a packaged head, a folder of sedtalker face fit (then "
        "also from weights to the vertices of its mesh), or a folder with neutral.obj and NAME.obj files",
    )
    parser.add_argument(
        "--into",
        type=any_path,
        metavar="AVATAR",
        help="with --to glb: a copy of this avatar (.glb, .gltf, .vrm) with the animation added; with --to vrma: for "
        "the expressions of this .vrm",
    )
    add_texture(parser)
    add_sign(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write one format of one animation; glb and usd also get a .wav with the same name."""
    from sedtalker.animation import load_animation
    from sedtalker.export import export_animation, export_sound
    from sedtalker.export.sound import describe_missing, find_recording
    from sedtalker.provenance.record import describe

    if arguments.into is not None and arguments.to not in ("glb", "vrma"):
        raise UsageError(f"--into does not work with --to {arguments.to}. Use --to glb or vrma")
    if arguments.sign is not None:
        from sedtalker.provenance.manifest import check_signer

        if arguments.to not in SEALED:
            raise UsageError(f"--sign does not work with --to {arguments.to}. Use --to {', '.join(SEALED)}")
        check_signer(*arguments.sign)
    animation = load_animation(arguments.animation)
    path = _output_path(arguments.output, arguments.animation, arguments.to)
    if arguments.audio is not None:
        animation = _replace_audio(animation, arguments.audio)
    if arguments.basis is not None:
        animation = _solve_basis(animation, arguments.basis)
    if arguments.texture is not None:
        from sedtalker.face.assets import replace_skin

        animation = replace(animation, rig=replace_skin(animation.face, arguments.texture))
    if arguments.fps is not None:
        from sedtalker.export.resample import resample_animation

        animation = resample_animation(animation, arguments.fps)
    if arguments.into is not None:
        _write_into(animation, arguments.to, arguments.into, path, arguments.sign)
    else:
        provenance = describe(animation.meta, face=animation.face.name, sign=arguments.sign)
        export_animation(animation, arguments.to, path, provenance)
    print(path)
    sound = export_sound(animation, arguments.to, path)
    if sound is not None:
        print(sound)
    elif arguments.to in PLAYED and find_recording(animation) is None:
        print(f"sedtalker: no audio: {one_line(describe_missing(animation, arguments.animation))}", file=sys.stderr)
    return 0


def _output_path(output: Path | None, animation: Path, name: str) -> Path:
    """The path to write. A path without a suffix, or of a folder, is the folder of the file; meshes are a folder."""
    default, ending = default_path(animation, name), FORMATS[name][1]
    if output is None:
        return default
    if not ending.startswith("."):
        return output
    if output.is_dir() or not output.suffix:
        return output / default.name
    if output.suffix.lower() in RESULTS - {ending}:
        raise UsageError(f"--to {name} does not fit the name {output}. End it in {ending}")
    return output


def _write_into(animation: Animation, name: str, avatar: Path, path: Path, sign: tuple[Path, Path] | None) -> None:
    from sedtalker.export.avatar import write_into
    from sedtalker.export.vrma import write_for
    from sedtalker.files import atomic_write
    from sedtalker.provenance import attach
    from sedtalker.provenance.record import describe

    with atomic_write(path) as temp_path:
        if name == "glb":
            write_into(animation, avatar, temp_path)
        else:
            write_for(animation, temp_path, avatar)
        attach(temp_path, describe(animation.meta, face=avatar.name, sign=sign))


def _replace_audio(animation: Animation, audio: Path) -> Animation:
    from sedtalker.audio import load_audio
    from sedtalker.files import sha256

    load_audio(audio)  # raises now if the file cannot be read
    return replace(animation, meta={**animation.meta, "audio": str(audio), "audio_sha256": sha256(audio)})


def _solve_basis(animation: Animation, basis: str) -> Animation:
    from sedtalker.export.retarget import retarget

    animation, solution = retarget(animation, basis)
    print(
        f"{len(solution.names)} shapes solved; remaining error (root mean square over the vertices): "
        f"mean {solution.mean_mm:.3f} mm, worst frame {solution.worst_mm:.3f} mm",
        file=sys.stderr,
    )
    return animation

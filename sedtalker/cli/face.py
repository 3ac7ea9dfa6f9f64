"""`sedtalker face`: heads of your own: `fit` makes a rig for a mesh, `random` makes up a person."""

from __future__ import annotations

import argparse
from typing import Any

from sedtalker.cli.options import add_seed, any_path, folder, integer


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "face", parents=[common], help="heads of your own: fit a mesh, or make up a person", description=__doc__
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    fit = actions.add_parser("fit", parents=[common], help="a mesh without a rig -> a head that speaks")
    fit.add_argument(
        "mesh",
        type=any_path,
        metavar="MESH",
        help="a head of any topology (.obj, .ply, .stl, .glb) whose lips can part",
    )
    fit.add_argument("-o", "--output", type=folder, required=True, metavar="DIR", help="new folder, for --face DIR")
    fit.add_argument(
        "--landmarks",
        type=any_path,
        metavar="FILE",
        help="corrections (.json): name -> vertex from 0 or [x, y, z] in the mesh's axes; names: nose_tip, "
        "mouth_middle, chin, mouth_left, mouth_right, eye_left_inner, eye_right_inner",
    )
    fit.set_defaults(run=run_fit)
    person = actions.add_parser("random", parents=[common], help="print a person for --face, such as man:age=40,...")
    add_seed(person, "the first person; the others have the next ones")
    person.add_argument(
        "-n", "--count", type=integer(1, 100_000), default=1, metavar="N", help="people, one a line (default: 1)"
    )
    person.set_defaults(run=run_random)


def run_fit(arguments: argparse.Namespace) -> int:
    """Write the folder of a head: its files, `report.json` and `shapes.png`."""
    import json
    from dataclasses import asdict

    from PIL import Image

    from sedtalker.face.asset_io import write_faces
    from sedtalker.face.fit import fit_mesh
    from sedtalker.face.fit_landmarks import read_landmarks
    from sedtalker.files import atomic_write
    from sedtalker.render.face_sheet import draw_test_shapes, with_baked_light

    landmarks = None if arguments.landmarks is None else read_landmarks(arguments.landmarks)
    face, report = fit_mesh(arguments.mesh, landmarks)
    face = with_baked_light(face)
    with atomic_write(arguments.output) as temp_path:
        write_faces(temp_path, [face])
        (temp_path / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        Image.fromarray(draw_test_shapes(face)).save(temp_path / "shapes.png")
    print(arguments.output)
    print(f"mesh: {report.vertices} vertices, {report.pose}")
    print(
        f"distance of the registered head: face {report.face_mean:.2f} mm (99 % below {report.face_worst:.2f}), "
        f"lips {report.lips_mean:.2f} mm"
    )
    print(f"from the mesh: {', '.join(report.kept) or 'skin alone'}; added: {', '.join(report.added) or 'nothing'}")
    for note in report.notes:
        print(f"note: {note}")
    return 0


def run_random(arguments: argparse.Namespace) -> int:
    """Print people for `--face`."""
    from sedtalker.face.identity import describe_person, random_person

    for offset in range(arguments.count):
        print(describe_person(*random_person(arguments.seed + offset)))
    return 0

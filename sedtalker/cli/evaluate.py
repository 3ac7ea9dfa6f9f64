"""`sedtalker evaluate`: a talker's animations against the truth, its motion without one, or a diarizer on a corpus."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.cli.options import decibels, integer, name_list, real

if TYPE_CHECKING:
    from sedtalker.evaluation.talker import Truth

BASELINES = ("still", "mean", "linear")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate", parents=[common], help="measure a talker or a diarizer", description=__doc__
    )
    models = parser.add_subparsers(dest="model", metavar="talker|motion|diarizer", required=True)
    _add_talker(models, common)
    _add_motion(models, common)
    _add_diarizer(models, common)


def _add_talker(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser("talker", parents=[common], help="predicted animations against true ones")
    parser.add_argument(
        "predicted", type=Path, metavar="PRED_DIR", help="predicted .npz or .npy files, or a trained talker's folder"
    )
    parser.add_argument("truth", type=Path, metavar="TRUTH_DIR", help="a prepared store, or true .npz or .npy files")
    parser.add_argument(
        "-o", "--output", type=Path, action="append", default=[], metavar="FILE", help=".json, .md or .html; repeatable"
    )
    parser.add_argument("--split", default="test", help="of a store (default: test)")
    parser.add_argument("--masks", type=Path, metavar="FILE", help="FLAME_masks.pkl, or lists of vertices as .json")
    parser.add_argument("--templates", type=Path, metavar="FILE", help="templates.pkl or a mesh, for a plain TRUTH_DIR")
    parser.add_argument(
        "--phones", type=Path, metavar="FILE", help="times of the phones, .tsv: closures are measured too"
    )
    parser.add_argument("--fps", type=real(1, 240, "Hz"), help="of a plain TRUTH_DIR (default: 30)")
    parser.add_argument(
        "--tolerance", type=integer(0, 10_000), default=0, metavar="FRAMES", help="lengths may differ by (default: 0)"
    )
    parser.add_argument(
        "--baselines",
        type=name_list(*BASELINES, "none"),
        metavar=",".join(BASELINES),
        help="default: all that can be made",
    )
    parser.add_argument("--seed", type=integer(0, 2**31 - 1), default=0, help="of the bootstrap (default: 0)")
    parser.add_argument(
        "--render",
        type=Path,
        metavar="DIR",
        help="videos of the worst, the median and the best clip: prediction, truth and heat-map side by side",
    )
    parser.add_argument(
        "--face", metavar="NAME|MESH", help="what --render draws (default: the default head or the truth's own mesh)"
    )
    parser.set_defaults(run=run_talker)


def _add_motion(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser(
        "motion",
        parents=[common],
        help="the motion of a talker or of animations, beside what measured faces do",
        description="Closures, timing, speeds, silence, rounding, trembling, and the emotion read back from the face.",
    )
    parser.add_argument(
        "what",
        type=Path,
        nargs="+",
        metavar="MODEL STORE|FILE",
        help="a trained talker's folder and a store (sedtalker data synthesize --to store), or animations (.npz)",
    )
    parser.add_argument(
        "--phones", type=Path, nargs="*", metavar="TSV", help="phone tables (default: the store's phones.tsv, or none)"
    )
    parser.add_argument("--text", metavar="WORDS", help="what is said in the animations; its phones are then found")
    parser.add_argument(
        "--most", type=integer(1, 100_000), metavar="N", help="clips of a source of the store (default: 60)"
    )
    parser.add_argument("--split", help="of the store (default: test)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the report as JSON")
    parser.set_defaults(run=run_motion)


def _add_diarizer(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser("diarizer", parents=[common], help="a diarizer on the speakers of a split")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="of a speech corpus")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for the tables, as JSON and Markdown")
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--diarizer", default="default", metavar="NAME|DIR", help="default, base, open, or a folder")
    parser.add_argument(
        "--noise",
        type=decibels,
        default=(),
        metavar="DB,DB",
        help="also under pink noise, e.g. 20,10,5,0",
    )
    parser.add_argument(
        "--crossfade",
        type=real(0, 1, "s"),
        default=0.0,
        metavar="SECONDS",
        help="blend the clips of recordings whose emotion changes (default: cuts)",
    )
    parser.add_argument(
        "--protocol",
        choices=("speakers", "emobox"),
        default="speakers",
        help="speakers of the split, as in use; or EmoBox's folds of RAVDESS, heads trained anew (default: speakers)",
    )
    parser.add_argument(
        "--features",
        type=Path,
        nargs="+",
        metavar="CACHE",
        help="for emobox: of python -m sedtalker.recipes cache_features --steps, the clean ones first",
    )
    parser.set_defaults(run=run_diarizer)


def run_talker(arguments: argparse.Namespace) -> int:
    """Measure a talker and its baselines; exit code 1 if a pair could not be measured."""
    from sedtalker.evaluation.masks import read_masks
    from sedtalker.evaluation.report import TALKER_FORMATS, format_text, write_report
    from sedtalker.evaluation.talker import evaluate, open_truth, summarise
    from sedtalker.face.vertex_masks import default_masks
    from sedtalker.phones import read_phones

    truth = open_truth(arguments.truth, arguments.split, arguments.fps, arguments.templates)
    vertices = truth.motion(truth.items[0]).shape[1]
    masks = read_masks(arguments.masks, vertices) if arguments.masks else default_masks(vertices)
    systems = _systems(arguments, truth)
    results = [evaluate(name, predict, truth, masks, arguments.tolerance) for name, predict in systems.items()]
    phones = read_phones(arguments.phones) if arguments.phones else None
    summary = summarise(results, truth, masks, arguments.seed, phones)
    print(format_text(summary))
    for path in arguments.output:
        write_report(summary, path, TALKER_FORMATS)
    if arguments.render:
        from sedtalker.evaluation.talker import face_of, render_extremes

        for path in render_extremes(
            results[0], systems[results[0].name], truth, arguments.render, face_of(truth, arguments.face)
        ):
            print(path)
    return 1 if results[0].bad else 0


def _systems(arguments: argparse.Namespace, truth: Truth) -> dict[str, Callable[..., Any]]:
    """The talker, and the baselines asked for, or else those that the truth allows."""
    from sedtalker.errors import DataError
    from sedtalker.evaluation import talker

    systems: dict[str, Callable[..., Any]] = {}
    if (arguments.predicted / "config.json").is_file():
        if not isinstance(truth, talker.StoreTruth):
            raise DataError(f"a talker's folder needs a prepared store as the truth: {arguments.truth} is none")
        systems["talker"] = talker.talker_predictions(arguments.predicted, truth)
    else:
        systems["talker"] = talker.predictions_of(arguments.predicted, truth.fps)
    wanted = arguments.baselines or BASELINES
    if "still" in wanted and truth.template(truth.items[0]) is not None:
        systems["still face"] = talker.still_face(truth)
    fitted = {"mean": ("mean motion", talker.mean_motion), "linear": ("linear", talker.linear_regression)}
    for key, (name, fit) in fitted.items():
        if key not in wanted:
            continue
        try:
            if not isinstance(truth, talker.StoreTruth):
                raise DataError("it is fitted on a prepared store's training split")
            systems[name] = fit(truth)
        except DataError as error:
            if arguments.baselines:
                raise
            print(f"without the baseline {name!r}: {error}", file=sys.stderr)
    systems["truth"] = truth.motion  # its own motion, lip intensity and their correlation with the sound
    return systems


def run_motion(arguments: argparse.Namespace) -> int:
    """Measure a talker's motion, or that of animations."""
    from sedtalker.evaluation.motion import format_motion
    from sedtalker.evaluation.report import write_report

    report = _model_motion(arguments) if arguments.what[0].is_dir() else _animations_motion(arguments)
    print(format_motion(report))
    if arguments.output:
        write_report(report, arguments.output)
    return 0


def _model_motion(arguments: argparse.Namespace) -> dict[str, Any]:
    from sedtalker.errors import DataError
    from sedtalker.evaluation.motion import evaluate

    if len(arguments.what) != 2:
        raise DataError(f"a talker's folder needs one store: sedtalker evaluate motion {arguments.what[0]} STORE")
    if arguments.text:
        raise DataError("--text says what animations hold: FILE.npz. The phones of a store are in its phones.tsv")
    talker, store = arguments.what
    tables = [store / "phones.tsv"] if arguments.phones is None else arguments.phones
    chosen = {name: value for name in ("most", "split") if (value := getattr(arguments, name))}
    return evaluate(talker, store, tables, **chosen)


def _animations_motion(arguments: argparse.Namespace) -> dict[str, Any]:
    from sedtalker.errors import DataError
    from sedtalker.evaluation.motion import evaluate_animations
    from sedtalker.phones import read_phones

    if arguments.most or arguments.split:
        raise DataError("--most and --split choose clips of a store. Name the animations that are to be measured")
    known = {name: phones for table in arguments.phones or () for name, phones in read_phones(table).items()}
    return evaluate_animations(arguments.what, known, arguments.text)


def run_diarizer(arguments: argparse.Namespace) -> int:
    """Measure a diarizer, or the encoder under EmoBox's protocol."""
    if arguments.protocol == "emobox":
        return _run_emobox(arguments)
    from sedtalker.evaluation.diarizer import evaluate_diarizer, format_diarizer, noises, write_diarizer_report

    report = evaluate_diarizer(
        arguments.manifest,
        arguments.diarizer,
        arguments.split,
        disturbances=noises(arguments.noise),
        crossfade=arguments.crossfade,
    )
    print(format_diarizer(report))
    if arguments.output:
        for path in write_diarizer_report(report, arguments.output):
            print(path)
    return 0


def _run_emobox(arguments: argparse.Namespace) -> int:
    from sedtalker.data.manifest import load_manifest
    from sedtalker.errors import DataError
    from sedtalker.evaluation.emobox import evaluate_emobox, format_emobox, write_emobox_report

    if not arguments.features:
        raise DataError("the protocol emobox needs cached features. Name their folder with --features")
    report = evaluate_emobox(load_manifest(arguments.manifest), arguments.features)
    print(format_emobox(report))
    if arguments.output:
        for path in write_emobox_report(report, arguments.output):
            print(path)
    return 0

"""`sedtalker evaluate`: measure a talker, motion, faces, a diarizer, emotion segments, or the mark in pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sedtalker.cli.each_file import process_each
from sedtalker.cli.options import (
    LOOK_AHEADS,
    add_count,
    add_diarizer,
    add_look_ahead,
    add_report,
    add_seed,
    add_workload,
    any_path,
    decibels,
    integer,
    integer_list,
    name_list,
    real,
    real_list,
    refuse_unused,
)
from sedtalker.errors import UsageError

BASELINES = ("still", "mean", "linear")


def named_model(text: str) -> tuple[str, str]:
    """Option type: CORPUS=DIR, the name of a corpus and the name or folder of a model."""
    name, _, model = text.partition("=")
    if not name or not model:
        raise argparse.ArgumentTypeError(f"{text!r} is not CORPUS=DIR, such as nemo=runs/without-nemo/model")
    return name, model


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "evaluate", parents=[common], help="measure a talker or a diarizer", description=__doc__
    )
    kinds = "talker|papers|motion|faces|live|expression|diarizer|diarization|mark"
    models = parser.add_subparsers(dest="model", metavar=kinds, required=True)
    _add_talker(models, common)
    _add_papers(models, common)
    _add_motion(models, common)
    _add_faces(models, common)
    _add_live(models, common)
    _add_expression(models, common)
    _add_diarizer(models, common)
    _add_diarization(models, common)
    _add_mark(models, common)


def _add_split(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument("--split", default="test", help=f"split of {of} (default: test)")


def _add_most(parser: argparse.ArgumentParser, of: str, default: str | int = "all") -> None:
    parser.add_argument(
        "--most", type=integer(1, 10**9), metavar="N", help=f"maximum number of clips {of} (default: {default})"
    )


def _add_spoken(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--spoken", type=any_path, required=required, metavar="DIR", help="recordings whose phones are known"
    )
    parser.add_argument(
        "--phones", type=any_path, required=required, metavar="TSV", help="their phones, by the names of the files"
    )


def _add_tracked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tracked",
        type=any_path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of tracked lips (NAME.npz) and their sound, to compare the mouth's shape with; repeatable",
    )


def _add_talker(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser("talker", parents=[common], help="compare predicted with true animations")
    parser.add_argument(
        "predicted",
        type=any_path,
        metavar="PRED_DIR",
        help="folder of predicted .npz or .npy files, or of a trained talker",
    )
    parser.add_argument(
        "truth", type=any_path, metavar="TRUTH_DIR", help="a prepared store, or a folder of true .npz or .npy files"
    )
    add_report(parser, ".md", ".html", repeatable=True)
    _add_split(parser, "a store")
    parser.add_argument(
        "--masks", type=any_path, metavar="FILE", help="FLAME_masks.pkl, or lists of vertex indices as .json"
    )
    parser.add_argument(
        "--templates", type=any_path, metavar="FILE", help="templates.pkl or a mesh, if TRUTH_DIR is not a store"
    )
    parser.add_argument(
        "--phones", type=any_path, metavar="FILE", help="table of phone times (.tsv), to measure lip closures"
    )
    parser.add_argument("--fps", type=real(1, 240, "Hz"), help="frame rate, if TRUTH_DIR is not a store (default: 30)")
    add_count(parser, "--tolerance", 0, 10_000, 0, "allowed difference of lengths", "FRAMES")
    parser.add_argument(
        "--baselines",
        type=name_list(*BASELINES, "none"),
        metavar=",".join(BASELINES),
        help="baselines to compare with (default: all that TRUTH_DIR allows)",
    )
    parser.add_argument(
        "--emotion",
        choices=("labels", "diarizer"),
        default="labels",
        help="emotion that a talker gets: the labels of the store, or the tracks of data prepare --diarizer "
        "(default: labels)",
    )
    add_workload(parser)
    add_seed(parser, "the bootstrap")
    parser.add_argument(
        "--render",
        type=any_path,
        metavar="DIR",
        help="write videos of the worst, median and best clip: prediction, truth and error side by side",
    )
    parser.add_argument(
        "--face", metavar="NAME|MESH", help="face of --render (default: the default head, or the mesh of the truth)"
    )
    parser.set_defaults(run=partial(run_talker, parser))


def _add_papers(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser(
        "papers", parents=[common], help="show the metrics of a talker in the formulas and units of papers"
    )
    parser.add_argument("report", type=any_path, metavar="REPORT", help="report of evaluate talker -o REPORT.json")
    add_report(parser, ".md")
    parser.set_defaults(run=run_papers)


def run_papers(arguments: argparse.Namespace) -> int:
    """Print the metrics of a report beside published ones."""
    from sedtalker.evaluation.papers import compare_with_papers, format_papers, read_summary

    report = compare_with_papers(read_summary(arguments.report))
    return _print_report(format_papers(report), report, arguments.output, {".md": format_papers})


def _add_motion(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser(
        "motion",
        parents=[common],
        help="analyse the motion of a talker or of animations, compared with measured faces",
        description="Measures lip closures, timing, speeds, silence, rounding, jitter, and the emotion of the face.",
    )
    parser.add_argument(
        "inputs",
        type=any_path,
        nargs="+",
        metavar="MODEL STORE|FILE",
        help="folder of a trained talker and a store (sedtalker data synthesize --to store), or animations (.npz)",
    )
    parser.add_argument(
        "--phones",
        type=any_path,
        nargs="*",
        metavar="TSV",
        help="tables of phone times (default: phones.tsv of the store)",
    )
    parser.add_argument("--text", metavar="WORDS", help="text of the animations, to align its phones")
    _add_tracked(parser)
    _add_most(parser, "of each source of the store", 60)
    parser.add_argument("--split", help="split of the store (default: test)")
    add_look_ahead(parser, "400, and the whole recording for the lip gap")
    add_report(parser)
    parser.set_defaults(run=partial(run_motion, parser))


def _add_faces(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser(
        "faces",
        parents=[common],
        help="measure speech on avatars and fitted heads, compared with the default head",
        description="Prints lip closures, lips that pass through each other and the speed of drawing as a Markdown "
        "table. All faces get the same weights.",
    )
    parser.add_argument("faces", nargs="+", metavar="FACE", help="avatars (.glb, .gltf, .vrm), fitted heads or names")
    _add_spoken(parser, required=True)
    parser.add_argument("--talker", default="default", metavar="NAME|DIR", help="default, or a folder")
    _add_most(parser, "of the folder")
    add_count(parser, "--drawn", 0, 100_000, 40, "frames that are drawn, for the speed")
    add_report(parser)
    parser.set_defaults(run=run_faces)


def _add_expression(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser(
        "expression",
        parents=[common],
        help="measure expressions against real action units, and with an outside classifier of pictures",
        description="Reads the emotion of speaking faces by measures that do not know how they were made.",
    )
    parser.add_argument(
        "recordings", type=any_path, nargs="*", metavar="AUDIO", help="neutral speech; two sentences are enough"
    )
    parser.add_argument(
        "--chain",
        type=any_path,
        metavar="MANIFEST",
        help="emotional recordings (sedtalker data prepare): intensities of the diarizer by acted level and, with "
        "--judge, whether the face shows what the diarizer names",
    )
    parser.add_argument("--split", default="validation", help="of --chain (default: %(default)s)")
    parser.add_argument(
        "--most",
        type=integer(1, 100_000),
        default=10,
        metavar="N",
        help="clips of --chain for each emotion and level (default: %(default)s)",
    )
    parser.add_argument(
        "--ravdess",
        type=any_path,
        metavar="DIR",
        help="RAVDESS with action_units/per_clip.csv, to compare with its actors",
    )
    parser.add_argument("--talker", default="default", metavar="NAME|DIR", help="default: %(default)s")
    parser.add_argument(
        "--judge",
        action="store_true",
        help="read rendered pictures too: needs pip install 'sedtalker[judge]' and pip install --no-deps facex",
    )
    add_report(parser)
    parser.set_defaults(run=partial(run_expression, parser))


def _add_live(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser(
        "live",
        parents=[common],
        help="measure live streams for each look-ahead, next to whole files",
        description="Prints latency, lip closures (--spoken with --phones), lip gap and width (--tracked) and frame "
        "UAR (--manifest) as a Markdown table; with --manifest another one of the first seconds of speech.",
    )
    parser.add_argument("talker", nargs="?", default="default", metavar="NAME|DIR", help="talker: default, or a folder")
    add_diarizer(parser)
    _add_spoken(parser, required=False)
    _add_tracked(parser)
    parser.add_argument("--manifest", type=any_path, metavar="MANIFEST", help="manifest of speech corpora")
    _add_split(parser, "the manifest")
    _add_most(parser, "of each folder and corpus")
    add_report(parser)
    parser.set_defaults(run=partial(run_live, parser))


def _add_diarizer(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser("diarizer", parents=[common], help="measure a diarizer on the speakers of a split")
    parser.add_argument("manifest", type=any_path, nargs="?", metavar="MANIFEST", help="manifest of speech corpora")
    parser.add_argument(
        "-o", "--output", type=any_path, metavar="DIR", help="folder for the report as JSON and Markdown"
    )
    parser.add_argument(
        "--ordinary",
        type=any_path,
        nargs="+",
        default=(),
        metavar="SOURCE",
        help="speech without emotion, to count false alarms: folders, or manifests with a corpus of it; needs no "
        "MANIFEST",
    )
    parser.add_argument(
        "--left-out",
        type=named_model,
        nargs="+",
        metavar="CORPUS=DIR",
        help="instead: measure each corpus with the diarizer that was trained without it",
    )
    _add_split(parser, "the manifest")
    _add_most(parser, "of each corpus")
    add_diarizer(parser)
    _add_conditions(parser)
    joined = "number of recordings with changing emotion that are joined from each speaker's clips"
    add_count(parser, "--per-speaker", 0, 10_000, 20, joined)
    parser.add_argument(
        "--crossfade",
        type=real(0, 1, "s"),
        default=0.0,
        metavar="SECONDS",
        help="length of the transitions in concatenated recordings (default: 0, cuts)",
    )
    parser.add_argument(
        "--protocol",
        choices=("speakers", "emobox"),
        default="speakers",
        help="speakers of the split, or linear heads on EmoBox's folds of RAVDESS (default: speakers)",
    )
    parser.add_argument(
        "--features",
        type=any_path,
        nargs="+",
        metavar="CACHE",
        help="for emobox: of python -m sedtalker.recipes cache_features --steps, clean features first",
    )
    parser.set_defaults(run=partial(run_diarizer, parser))


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    """Options for additional tests of a diarizer under other conditions."""
    parser.add_argument(
        "--noise",
        type=decibels,
        default=(),
        metavar="DB,DB",
        help="signal-to-noise ratios of additional tests with pink noise, such as 20,10,5,0",
    )
    parser.add_argument(
        "--channels",
        type=name_list("telephone", "room", "music"),
        default=(),
        metavar="NAMES",
        help="additional tests by telephone, in a room, and with music under the speech: telephone,room,music",
    )
    parser.add_argument(
        "--look-aheads",
        type=integer_list(20, 10_000),
        default=(),
        metavar="MS,MS",
        help="additional tests with a streaming encoder's look-aheads, such as 80,120,200,400",
    )
    parser.add_argument(
        "--references",
        type=real_list(0, 3600, "s"),
        default=(),
        metavar="S,S",
        help="additional tests in which other clips of the speaker are known, such as 0,3,6,12,20,60 seconds of them",
    )
    parser.add_argument(
        "--non-speech",
        type=any_path,
        nargs="*",
        metavar="DIR",
        help="additional tests with music, laughter, breath, barks and sounds from folders next to the speech",
    )


def _add_diarization(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser(
        "diarization",
        parents=[common],
        help="score emotion segments of any system against true ones",
        description="Each side is RTTM (the emotion in its 8th field), a table of frames, or a folder of track files.",
    )
    benchmark = "true segments, such as the folder of python -m sedtalker.recipes frame_benchmark"
    parser.add_argument("reference", type=any_path, metavar="REFERENCE", help=benchmark)
    parser.add_argument("hypothesis", type=any_path, metavar="HYPOTHESIS", help="segments of a system")
    add_report(parser, ".md")
    add_seed(parser, "the bootstrap")
    parser.set_defaults(run=run_diarization)


def _add_mark(models: Any, common: argparse.ArgumentParser) -> None:
    parser = models.add_parser("mark", parents=[common], help="measure the mark in pictures")
    add_count(parser, "--frames", 1, 10_000_000, 40_000, "unmarked pictures, for false alarms")
    parser.add_argument(
        "--photographs", type=any_path, metavar="DIR", help="also parts of the pictures of a folder, for false alarms"
    )
    add_seed(parser, "the pictures")
    add_report(parser)
    parser.set_defaults(run=run_mark)


def _print_report(
    text: str, report: Mapping[str, Any], output: Path | None, formats: Mapping[str, Callable[[Any], str]] | None = None
) -> int:
    """Print the text of a report, write the report to `output` if one is given, and return exit code 0."""
    from sedtalker.evaluation.report import write_report

    print(text)
    if output:
        write_report(report, output, formats)
    return 0


def run_mark(arguments: argparse.Namespace) -> int:
    """Measure false alarms, visibility, time and survival of the mark."""
    from sedtalker.evaluation.picture_mark import format_mark, measure_mark

    report = measure_mark(arguments.frames, arguments.seed, arguments.photographs)
    return _print_report(format_mark(report), report.plain(), arguments.output)


def run_talker(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Measure a talker and its baselines; exit code 1 if a sequence could not be measured."""
    from sedtalker.data.vertex_store import is_store
    from sedtalker.evaluation.masks import read_masks
    from sedtalker.evaluation.report import TALKER_FORMATS, format_text, write_report
    from sedtalker.evaluation.systems import make_systems
    from sedtalker.evaluation.talker import Workload, evaluate_systems, summarise
    from sedtalker.evaluation.truth import open_truth
    from sedtalker.face.vertex_masks import default_masks
    from sedtalker.files import RECORDS_FOLDER
    from sedtalker.phones import read_phones

    if is_store(arguments.truth):
        refuse_unused(parser, arguments, "fps templates", "on a store")
    if arguments.render is None:
        refuse_unused(parser, arguments, "face", "without --render")
    truth = open_truth(arguments.truth, arguments.split, arguments.fps, arguments.templates)
    vertices = truth.motion(truth.items[0]).shape[1]
    masks = read_masks(arguments.masks, vertices) if arguments.masks else default_masks(vertices)
    systems = make_systems(arguments.predicted, truth, arguments.baselines, arguments.emotion)
    folder = (arguments.output[0].parent if arguments.output else Path.cwd()) / RECORDS_FOLDER
    workload = Workload(arguments.jobs, arguments.executor, folder)
    results = evaluate_systems(systems, truth, masks, arguments.tolerance, workload)
    phones = read_phones(arguments.phones) if arguments.phones else None
    summary = summarise(results, truth, masks, arguments.seed, phones)
    print(format_text(summary))
    for path in arguments.output:
        write_report(summary, path, TALKER_FORMATS)
    if arguments.render:
        from sedtalker.evaluation.extremes import choose_face, render_extremes

        for path in render_extremes(
            results[0], systems[results[0].name], truth, arguments.render, choose_face(truth, arguments.face)
        ):
            print(path)
    return 1 if results[0].bad else 0


def run_expression(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Measure the expressions of a talker."""
    from sedtalker.data.manifest import load_manifest
    from sedtalker.evaluation.expression import evaluate_expression, format_expression
    from sedtalker.evaluation.expression_chain import evaluate_chain, format_chain
    from sedtalker.pipeline import load

    if not arguments.recordings and not arguments.chain:
        raise UsageError("nothing to evaluate. Give neutral recordings, --chain MANIFEST, or both")
    if not arguments.recordings:
        refuse_unused(parser, arguments, "ravdess", "without recordings")
    if arguments.chain is None:
        refuse_unused(parser, arguments, "split most", "without --chain")
    manifest = load_manifest(arguments.chain) if arguments.chain else None
    talker = load(arguments.talker, device="cpu")
    report: dict[str, Any] = {}
    texts = []
    if arguments.recordings:
        report = evaluate_expression(talker, arguments.recordings, arguments.ravdess, arguments.judge)
        texts.append(format_expression(report))
    if manifest is not None:
        report["chain"] = evaluate_chain(talker, manifest, arguments.split, arguments.most, arguments.judge)
        texts.append(format_chain(report["chain"]))
    return _print_report("\n".join(texts), report, arguments.output)


def run_motion(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Analyse the motion of a talker or of animations."""
    from sedtalker.resources import asset

    model = arguments.inputs[0]
    is_model = model.is_dir() or (not model.exists() and asset("talker", str(model)).is_dir())
    if is_model:
        report, failed = _model_motion(arguments), False
    else:
        refuse_unused(parser, arguments, "most split look_ahead tracked", "on animations")
        report, failed = _animations_motion(arguments)
    if not report:
        return 1
    from sedtalker.evaluation.motion import format_motion

    return _print_report(format_motion(report), report, arguments.output) or int(failed)


def _model_motion(arguments: argparse.Namespace) -> dict[str, Any]:
    from sedtalker.evaluation.motion import evaluate

    if len(arguments.inputs) != 2:
        raise UsageError(
            f"a talker needs one store: {arguments.inputs[0]}. Use: evaluate motion {arguments.inputs[0]} STORE"
        )
    if arguments.text:
        raise UsageError(f"--text works only for animations (.npz): {arguments.inputs[0]}. A store has phones.tsv")
    talker, store = arguments.inputs
    tables = [store / "phones.tsv"] if arguments.phones is None else arguments.phones
    if arguments.phones is None and store.is_dir() and not tables[0].is_file():
        raise UsageError(f"no phones.tsv in the store {store}. Name tables of its phones with --phones")
    limits = {name: value for name in ("most", "split", "look_ahead") if (value := getattr(arguments, name))}
    return evaluate(talker, store, tables, tracked_folders=arguments.tracked, **limits)


def _animations_motion(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """The report of the animations that can be measured, and whether one cannot, which is printed."""
    from sedtalker.animation import load_animation
    from sedtalker.data.alignment import Aligner
    from sedtalker.phones import read_phones

    phones = {name: spans for table in arguments.phones or () for name, spans in read_phones(table).items()}
    aligner = Aligner() if arguments.text else None
    report: dict[str, Any] = {}

    def measure(path: Path) -> None:
        animation = load_animation(path)  # raises before torch is imported
        from sedtalker.evaluation.motion import evaluate_animation

        report[str(path)] = evaluate_animation(animation, path, phones, arguments.text, aligner)

    failed = process_each(arguments.inputs, measure)
    return report, failed


def run_faces(arguments: argparse.Namespace) -> int:
    """Measure speech on faces; the default head is the reference."""
    from sedtalker.evaluation.faces import evaluate_faces, format_faces
    from sedtalker.evaluation.live import find_spoken
    from sedtalker.phones import read_phones
    from sedtalker.pipeline import load

    spoken = find_spoken(arguments.spoken, read_phones(arguments.phones), arguments.most)
    report = evaluate_faces(load(arguments.talker), ["default", *arguments.faces], spoken, arguments.drawn)
    return _print_report(format_faces(report), report, arguments.output)


def run_live(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Measure live streams for each look-ahead."""
    from sedtalker.data.manifest import load_manifest
    from sedtalker.encoder_config import LookAheadDial
    from sedtalker.evaluation.live import (
        LiveData,
        evaluate_live,
        evaluate_moments,
        find_emotional,
        find_spoken,
        format_live,
        format_moments,
    )
    from sedtalker.evaluation.motion import tracked_pairs
    from sedtalker.phones import read_phones
    from sedtalker.pipeline import load

    if (arguments.spoken is None) != (arguments.phones is None):
        raise UsageError("--spoken needs --phones, and --phones needs --spoken. Give both")
    if not (arguments.spoken or arguments.tracked or arguments.manifest):
        raise UsageError("nothing to measure. Give --spoken with --phones, --tracked, or --manifest")
    if arguments.manifest is None:
        refuse_unused(parser, arguments, "split", "without --manifest")
    most = arguments.most
    tracked = [pair for folder in arguments.tracked for pair in tracked_pairs(folder)[:most]]
    spoken = find_spoken(arguments.spoken, read_phones(arguments.phones), most) if arguments.spoken else []
    emotional = find_emotional(load_manifest(arguments.manifest), arguments.split, most) if arguments.manifest else []
    talker = load(arguments.talker, diarizer=arguments.diarizer)
    look_aheads = LOOK_AHEADS if isinstance(talker.encoder, LookAheadDial) else (None,)
    report: dict[str, Any] = {**evaluate_live(talker, LiveData(tracked, spoken, emotional), look_aheads)}
    text = format_live(report)
    if emotional:
        report["moments"] = evaluate_moments(talker, emotional)
        text = f"{text}\n\n{format_moments(report['moments'])}"
    return _print_report(text, report, arguments.output)


def run_diarizer(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Measure a diarizer, or the encoder under EmoBox's protocol."""
    if arguments.manifest is None and (arguments.protocol == "emobox" or arguments.left_out or not arguments.ordinary):
        raise UsageError("no MANIFEST of speech corpora. Write one with sedtalker data prepare, or use --ordinary DIR")
    tests = "noise channels look_aheads references non_speech per_speaker crossfade"  # on the clips of MANIFEST
    if arguments.left_out:
        refuse_unused(parser, arguments, f"ordinary split diarizer {tests} protocol features", "with --left-out")
        return _run_cross_corpus(arguments)
    if arguments.protocol == "emobox":
        refuse_unused(parser, arguments, f"ordinary split diarizer {tests} most", "with --protocol emobox")
        return _run_emobox(arguments)
    refuse_unused(parser, arguments, "features", "without --protocol emobox")
    if arguments.manifest is None:
        refuse_unused(parser, arguments, f"{tests} most", "without MANIFEST")
    from sedtalker.evaluation.diarizer import (
        evaluate_diarizer,
        format_diarizer,
        make_channels,
        make_noises,
        write_diarizer_report,
    )

    report = evaluate_diarizer(
        arguments.manifest,
        arguments.diarizer,
        arguments.split,
        arguments.per_speaker,
        degradations=make_noises(arguments.noise) | make_channels(arguments.channels),
        crossfade=arguments.crossfade,
        most=arguments.most,
        look_aheads=arguments.look_aheads,
        references=arguments.references,
        sounds=arguments.non_speech,
        ordinary=arguments.ordinary,
    )
    print(format_diarizer(report))
    if arguments.output:
        for path in write_diarizer_report(report, arguments.output):
            print(path)
    return 0


def run_diarization(arguments: argparse.Namespace) -> int:
    """Score emotion segments against true ones."""
    from sedtalker.evaluation.benchmark import format_scores, read_segmentation, score

    report = score(read_segmentation(arguments.reference), read_segmentation(arguments.hypothesis), arguments.seed)
    return _print_report(format_scores(report), report, arguments.output, {".md": format_scores})


def _run_cross_corpus(arguments: argparse.Namespace) -> int:
    from sedtalker.data.manifest import load_manifest
    from sedtalker.evaluation.cross_corpus import evaluate_cross_corpus, format_cross_corpus
    from sedtalker.evaluation.report import write_report

    report = evaluate_cross_corpus(load_manifest(arguments.manifest), dict(arguments.left_out), arguments.most)
    print(format_cross_corpus(report))
    if arguments.output:
        for path in (arguments.output / "cross-corpus.json", arguments.output / "cross-corpus.md"):
            write_report(report, path, {".md": format_cross_corpus})
            print(path)
    return 0


def _run_emobox(arguments: argparse.Namespace) -> int:
    from sedtalker.data.manifest import load_manifest
    from sedtalker.evaluation.emobox import evaluate_emobox, format_emobox, write_emobox_report

    if not arguments.features:
        raise UsageError(
            f"--protocol emobox needs cached features: {arguments.manifest}. Name their folder with --features"
        )
    report = evaluate_emobox(load_manifest(arguments.manifest), arguments.features)
    print(format_emobox(report))
    if arguments.output:
        for path in write_emobox_report(report, arguments.output):
            print(path)
    return 0

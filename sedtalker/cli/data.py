"""`sedtalker data`: prepare, check or synthesize a corpus for training."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.cli.options import add_count, add_seed, any_path, integer, real, refuse_unused
from sedtalker.errors import DataError, UsageError

if TYPE_CHECKING:
    from sedtalker.data.prepare import PrepareReport
    from sedtalker.data.vertex_corpora.sequences import VertexSource

CORPORA = ("emovoca", "vocaset", "biwi", "own")
SPEECH = (
    "ravdess", "crema-d", "nemo", "savee", "tess", "esd", "emov-db", "jl-corpus", "iemocap", "meld", "emodb",
    "zed", "banglaser", "emogator", "emotiontts", "emospeech", "emotale", "spoken", "librispeech",
)  # fmt: skip
NONE = "none"  # of --encoder and --diarizer
READING = "fps source_fps scale templates all_expressions"  # options of `_add_reading`
SHOWN = 20  # printed lines of each list; the manifest has all


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "data", parents=[common], help="prepare, check or synthesize a corpus", description=__doc__
    )
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_prepare(commands, common)
    _add_check(commands, common)
    _add_synthesize(commands, common)
    _add_expressions(commands, common)


def _add_prepare(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "prepare",
        parents=[common],
        help="a corpus of faces -> a store for training; a corpus of emotional speech -> a manifest",
        description=f"Faces: {', '.join(CORPORA)}. Emotional speech, for a diarizer: {', '.join(SPEECH)}. Several "
        "speech corpora may be added to the same manifest, one by one; they are split by speaker.",
    )
    parser.add_argument("corpus", choices=CORPORA + SPEECH, metavar="CORPUS", help="one of the names above")
    parser.add_argument("source", type=any_path, metavar="SRC", help="folder that the publisher's archive unpacks to")
    parser.add_argument(
        "-o",
        "--output",
        type=any_path,
        required=True,
        metavar="DST",
        help="folder of the store, or file of the manifest",
    )
    parser.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="type of the stored displacements (default: float16)",
    )
    parser.add_argument(
        "--encoder",
        default="whisper-tiny.en",
        metavar="NAME",
        help="speech encoder whose features the store gets, or none (default: whisper-tiny.en)",
    )
    parser.add_argument(
        "--diarizer",
        default=NONE,
        metavar="NAME|DIR",
        help="diarizer that is run on the sound, for a training with emotion=diarizer (default: none)",
    )
    _add_reading(parser)
    parser.set_defaults(run=partial(run_prepare, parser))


def _add_check(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("check", parents=[common], help="check a store, or a corpus before preparing it")
    parser.add_argument("folder", type=any_path, metavar="DIR", help="a store, or the folder of a corpus")
    parser.add_argument(
        "--corpus", choices=CORPORA, default="own", help="corpus in DIR if it is not a store (default: own)"
    )
    _add_reading(parser)
    parser.set_defaults(run=partial(run_check, parser))


def _add_synthesize(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "synthesize",
        parents=[common],
        help="synthesize emotional motion of the packaged heads from speech with known phones",
        description="Without --spoken and --speech it synthesizes syllables and their motion, to test training.",
    )
    parser.add_argument("-o", "--output", type=any_path, required=True, metavar="DIR", help="folder of the result")
    parser.add_argument(
        "--to",
        choices=("emovoca", "store"),
        default="emovoca",
        help="EmoVOCA's layout, or the store on which the default talker is trained (default: emovoca)",
    )
    speech = parser.add_argument_group("speech")
    speech.add_argument(
        "--spoken", type=any_path, metavar="DIR", help="folder with utterances.tsv, audio/ and phones.tsv"
    )
    speech.add_argument(
        "--speech", type=any_path, metavar="MANIFEST", help="manifest of corpora with transcripts, English or Polish"
    )
    speech.add_argument(
        "--phones",
        type=any_path,
        nargs="*",
        default=[],
        metavar="TSV",
        help="tables of phone times; other recordings are aligned",
    )
    speech.add_argument(
        "--most", type=integer(1, 1_000_000), metavar="N", help="maximum number of recordings per corpus (default: all)"
    )
    faces = parser.add_argument_group("measured faces, for --to store")
    faces.add_argument("--grid", type=any_path, metavar="DIR", help="folder with s1/ and s1_words.tsv")
    faces.add_argument("--facegood", type=any_path, metavar="DIR", help="folder of FACEGOOD-Audio2Face")
    heads = parser.add_argument_group("heads, for --to emovoca")
    add_count(heads, "--sentences", 1, 20, 4, "per subject")
    heads.add_argument("--identities", nargs="*", metavar="NAME", help="packaged heads (default: all)")
    heads.add_argument(
        "--fps", type=real(1, 240, "Hz"), default=30.0, help="frames per second, with speech (default: 30)"
    )
    add_count(heads, "--subjects", 1, 12, 4, "number of subjects, without speech")
    heads.add_argument(
        "--seconds", type=real(0.5, 60, "s"), default=2.0, help="length of a sentence, without speech (default: 2)"
    )
    add_seed(parser, "the syllables")
    parser.set_defaults(run=partial(run_synthesize, parser))


def _add_expressions(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "expressions",
        parents=[common],
        help="labelled clips of dynamic expressions, for recognisers",
        description="Writes videos with action units, weights, landmarks, emotion, intensity, masks and descriptions.",
    )
    parser.add_argument("-o", "--output", type=any_path, required=True, metavar="DIR", help="folder of the result")
    add_count(parser, "--clips", 1, 10_000_000, 100, "number of clips")
    parser.add_argument(
        "--emotions",
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        metavar="NAMES",
        help="comma-separated; a name given twice is drawn twice as often (default: all but neutral, equally)",
    )
    parser.add_argument("--seconds", type=real(0.6, 60, "s"), default=2.0, help="length of a clip (default: 2)")
    parser.add_argument("--fps", type=real(1, 240, "Hz"), default=30.0, help="frames per second (default: 30)")
    add_count(parser, "--size", 64, 2048, 256, "width and height", "PIXELS")
    parser.add_argument(
        "--format", choices=("json", "parquet"), default="json", help="of the tables; parquet needs pyarrow"
    )
    add_seed(parser, "the clips")
    parser.set_defaults(run=run_expressions)


def run_expressions(arguments: argparse.Namespace) -> int:
    """Write labelled clips of expressions."""
    from sedtalker.synthesis.expression_clips import EMOTIONS, ClipOptions, write_clips

    emotions = arguments.emotions or EMOTIONS
    unknown = sorted({*emotions} - {*EMOTIONS})
    if unknown:
        raise UsageError(f"argument --emotions: unknown: {', '.join(unknown)} (known: {', '.join(EMOTIONS)})")
    if arguments.size % 2:
        raise UsageError(f"--size {arguments.size} is odd, but mp4 needs an even size. Use {arguments.size + 1}")
    options = ClipOptions(
        arguments.clips, arguments.seconds, arguments.fps, arguments.size, emotions, arguments.format, arguments.seed
    )
    rows = write_clips(arguments.output, options)
    print(f"{arguments.output}: {len(rows)} clips, {sum(row['frames'] for row in rows)} frames")
    return 0


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fps", type=real(1, 240, "Hz"), help="of the store (default: 30 if it divides the rate of the corpus)"
    )
    parser.add_argument(
        "--source-fps",
        type=real(1, 240, "Hz"),
        metavar="FPS",
        help="of the corpus (default: from the lengths of its audio)",
    )
    parser.add_argument(
        "--scale",
        type=real(1e-6, 1e6),
        default=1.0,
        metavar="METRES",
        help="metres per unit of the corpus (default: 1)",
    )
    parser.add_argument(
        "--templates", type=any_path, metavar="FILE", help="templates.pkl, or the mesh of your own data"
    )
    parser.add_argument(
        "--all-expressions", action="store_true", help="include EmoVOCA's expressions for which the model has no label"
    )


def run_prepare(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Prepare a corpus; exit code 1 if a sequence was refused."""
    if arguments.corpus in SPEECH:
        refuse_unused(parser, arguments, f"dtype encoder diarizer {READING}", "on a corpus of speech")
        if arguments.output.suffix.lower() != ".json":
            raise UsageError(f"-o names the manifest of a corpus of speech, not {arguments.output}. End it in .json")
        from sedtalker.data.speech_corpora.registry import add_corpus, summary

        print(summary(add_corpus(arguments.output, arguments.corpus, arguments.source)))
        return 0
    from sedtalker.data.prepare import PrepareOptions, prepare
    from sedtalker.data.vertex_store import open_store, split_counts

    _check_models(arguments.encoder, arguments.diarizer)
    options = PrepareOptions(arguments.fps, arguments.source_fps, arguments.dtype, arguments.scale)
    outcome = prepare(_read_corpus(arguments.corpus, arguments.source, arguments), arguments.output, options)
    _print_outcome(outcome)
    for split, (clips, frames, subjects) in split_counts(outcome.clips).items():
        print(f"{split}: {clips} clips, {frames} frames, subjects: {subjects}")
    if arguments.encoder != NONE:
        from sedtalker.data.features import cache_store_features

        sounds = cache_store_features(open_store(arguments.output), arguments.encoder)
        print(f"features: {arguments.encoder}, {sounds} audio files, shared by the variants of a sentence")
    if arguments.diarizer != NONE:
        from sedtalker.data.vertex_emotion import cache_store_emotions

        sounds = cache_store_emotions(open_store(arguments.output), arguments.diarizer)
        print(f"emotion tracks: diarizer {arguments.diarizer}, {sounds} audio files")
    print(f"{arguments.output}: {len(outcome.clips)} clips at {outcome.fps:g} fps, {len(outcome.refused)} refused")
    return 1 if outcome.refused else 0


def _check_models(encoder: str, diarizer: str) -> None:
    """Raise before the sequences are converted if a model cannot be loaded."""
    if encoder != NONE:
        from sedtalker.speech import load_encoder

        load_encoder(encoder)
    if diarizer != NONE:
        from sedtalker.pipeline import load

        load(diarizer=diarizer)


def run_check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Check a store or a corpus; exit code 1 if a clip is invalid."""
    from sedtalker.data.prepare import PrepareOptions, check_source, check_store
    from sedtalker.data.vertex_store import is_store, open_store

    if not arguments.folder.is_dir():
        raise DataError(f"not a folder: {arguments.folder}. Name a store, or the folder of a corpus")
    if is_store(arguments.folder):
        refuse_unused(parser, arguments, f"corpus {READING}", "on a store")
        store = open_store(arguments.folder)
        invalid, count = check_store(store), len(store)
        _print_lines("refused", [f"{name}: {reason}" for name, reason in invalid.items()])
    else:
        options = PrepareOptions(arguments.fps, arguments.source_fps, scale=arguments.scale)
        outcome = check_source(_read_corpus(arguments.corpus, arguments.folder, arguments), options)
        _print_outcome(outcome)
        invalid, count = outcome.refused, len(outcome.clips) + len(outcome.refused)
    print(f"{arguments.folder}: {count - len(invalid)} of {count} clips are valid")
    return 1 if invalid else 0


def run_synthesize(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Synthesize a corpus, or the store of the default talker."""
    if arguments.to == "store":
        refuse_unused(parser, arguments, "sentences identities fps subjects seconds seed", "with --to store")
        if not (arguments.spoken or arguments.speech or arguments.grid or arguments.facegood):
            raise UsageError("no speech for --to store. Give --spoken, --speech, --grid or --facegood")
        if not (arguments.speech or arguments.grid):
            refuse_unused(parser, arguments, "phones", "without --speech and --grid")
        _synthesize_store(arguments)
    elif arguments.spoken or arguments.speech:
        refuse_unused(parser, arguments, "grid facegood subjects seconds seed", "with speech and --to emovoca")
        if not arguments.speech:
            refuse_unused(parser, arguments, "phones", "without --speech")
        _synthesize_speech(arguments)
    else:
        refuse_unused(parser, arguments, "phones most grid facegood identities fps", "without --spoken and --speech")
        _synthesize_syllables(arguments)
    return 0


def _read_corpus(name: str, folder: Path, arguments: argparse.Namespace) -> VertexSource:
    from sedtalker.data.vertex_corpora.registry import read_corpus

    return read_corpus(name, folder, arguments.templates, arguments.all_expressions)


def _synthesize_store(arguments: argparse.Namespace) -> None:
    from sedtalker.mel import FRAME_RATE
    from sedtalker.synthesis.rig_clips import StoreSources, build_store

    sources = StoreSources(
        arguments.spoken, arguments.grid, arguments.facegood, arguments.speech, tuple(arguments.phones)
    )
    clips = build_store(arguments.output, sources, arguments.most)
    print(f"{arguments.output}: {len(clips)} clips, {sum(clip.frames for clip in clips) / FRAME_RATE / 3600:.2f} h")


def _synthesize_speech(arguments: argparse.Namespace) -> None:
    from sedtalker.synthesis.talking_heads import synthesize_talking_heads

    sequences, subjects = synthesize_talking_heads(
        arguments.output,
        spoken=arguments.spoken,
        speech=arguments.speech,
        phones=arguments.phones,
        most=arguments.most,
        identities=arguments.identities,
        sentences=arguments.sentences,
        fps=arguments.fps,
    )
    print(f"{arguments.output}/New_EmoVOCA: {sequences} sequences of {subjects} subjects")


def _synthesize_syllables(arguments: argparse.Namespace) -> None:
    from sedtalker.face.assets import load_face
    from sedtalker.synthesis.emovoca_like import make_size, synthesize_emovoca

    size = make_size(arguments.subjects, arguments.sentences, arguments.seconds)
    sequences = synthesize_emovoca(arguments.output, load_face(), size, arguments.seed)
    print(f"{arguments.output}/New_EmoVOCA: {sequences} sequences")


def _print_outcome(outcome: PrepareReport) -> None:
    for note in (*outcome.notes, *outcome.run_notes):
        print(note)
    _print_lines("missing", outcome.missing)
    _print_lines("refused", [f"{name}: {reason}" for name, reason in outcome.refused.items()])


def _print_lines(title: str, lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"{title}: {line}")
    if len(lines) > SHOWN:
        print(f"{title}: and {len(lines) - SHOWN} more")

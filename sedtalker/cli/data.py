"""`sedtalker data`: prepare a corpus for training, look one over, or make one."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.cli.options import integer, real

if TYPE_CHECKING:
    from sedtalker.data.prepare import Outcome
    from sedtalker.data.vertex_corpora.sequences import Source

CORPORA = ("emovoca", "vocaset", "biwi", "own")
SPEECH = (
    "ravdess", "crema-d", "nemo", "savee", "tess", "esd", "emov-db", "jl-corpus", "iemocap", "meld", "emodb",
    "zed", "banglaser", "emogator", "spoken",
)  # fmt: skip
SHOWN = 20  # lines of each list on the screen; the manifest has them all


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("data", parents=[common], help="prepare, check or make a corpus", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_prepare(actions, common)
    _add_check(actions, common)
    _add_synthesize(actions, common)


def _add_prepare(actions: Any, common: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "prepare",
        parents=[common],
        help="a corpus of faces -> a store that trains fast; one of emotional speech -> a manifest",
        description=f"Faces: {', '.join(CORPORA)}. Emotional speech, for a diarizer: {', '.join(SPEECH)}; prepared one "
        "after the other into one manifest they are trained on together, split by speaker.",
    )
    parser.add_argument("corpus", choices=CORPORA + SPEECH, metavar="CORPUS")
    parser.add_argument("source", type=Path, metavar="SRC", help="the folder that the publisher's archive unpacks to")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DST", help="folder of the store, or the manifest's file"
    )
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="default: float16")
    parser.add_argument(
        "--encoder",
        default="whisper-tiny.en",
        metavar="NAME",
        help="whose speech features are kept for training, none for none (default: whisper-tiny.en)",
    )
    _add_reading(parser)
    parser.set_defaults(run=run_prepare)


def _add_check(actions: Any, common: argparse.ArgumentParser) -> None:
    parser = actions.add_parser("check", parents=[common], help="look a store, or a corpus before preparing it, over")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a store, or a folder of a corpus")
    parser.add_argument("--corpus", choices=CORPORA, default="own", help="what DIR holds if no store (default: own)")
    _add_reading(parser)
    parser.set_defaults(run=run_check)


def _add_synthesize(actions: Any, common: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "synthesize",
        parents=[common],
        help="make a corpus of the default head: speech with known phones, performed with feeling",
        description="Without speech it makes syllables, whose motion the sound explains, to try the way of the data.",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--to",
        choices=("emovoca", "store"),
        default="emovoca",
        help="EmoVOCA's layout, or the store that the default talker trains on (default: emovoca)",
    )
    speech = parser.add_argument_group("speech")
    speech.add_argument("--spoken", type=Path, metavar="DIR", help="folder of utterances.tsv, audio/ and phones.tsv")
    speech.add_argument(
        "--speech", type=Path, metavar="MANIFEST", help="of corpora with transcripts, English or Polish"
    )
    speech.add_argument(
        "--phones", type=Path, nargs="*", default=[], metavar="TSV", help="phone tables; what they lack is aligned"
    )
    speech.add_argument("--most", type=integer(1, 1_000_000), metavar="N", help="recordings of a corpus (default: all)")
    faces = parser.add_argument_group("measured faces, for --to store")
    faces.add_argument("--grid", type=Path, metavar="DIR", help="folder of s1/ and s1_words.tsv")
    faces.add_argument("--facegood", type=Path, metavar="DIR")
    heads = parser.add_argument_group("heads, for --to emovoca")
    heads.add_argument("--sentences", type=integer(1, 20), default=4, metavar="N", help="of each subject (default: 4)")
    heads.add_argument("--identities", nargs="*", metavar="NAME", help="default: all packaged ones, in turn")
    heads.add_argument("--fps", type=real(1, 240, "Hz"), default=30.0, help="with speech (default: 30)")
    heads.add_argument("--subjects", type=integer(1, 12), default=4, metavar="N", help="without speech (default: 4)")
    heads.add_argument(
        "--seconds", type=real(0.5, 60, "s"), default=2.0, help="of a sentence without speech (default: 2)"
    )
    parser.add_argument("--seed", type=integer(0, 2**31 - 1), default=0, help="of the syllables")
    parser.set_defaults(run=run_synthesize)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fps", type=real(1, 240, "Hz"), help="of the store (default: 30 where it divides the corpus's rate)"
    )
    parser.add_argument(
        "--source-fps", type=real(1, 240, "Hz"), help="of the corpus (default: told by the sounds' lengths)"
    )
    parser.add_argument(
        "--scale",
        type=real(1e-6, 1e6),
        default=1.0,
        metavar="METRES",
        help="metres a unit of the corpus (default: 1)",
    )
    parser.add_argument("--templates", type=Path, metavar="FILE", help="templates.pkl, or the mesh of your own data")
    parser.add_argument("--all-expressions", action="store_true", help="also EmoVOCA's that the model has no label for")


def run_prepare(arguments: argparse.Namespace) -> int:
    """Prepare a corpus; exit code 1 if a sequence of faces had to be left out."""
    if arguments.corpus in SPEECH:
        return _prepare_speech(arguments)
    from sedtalker.data.prepare import Options, prepare
    from sedtalker.data.vertex_store import open_store, split_counts

    options = Options(arguments.fps, arguments.source_fps, arguments.dtype, arguments.scale)
    outcome = prepare(_read(arguments.corpus, arguments.source, arguments), arguments.output, options)
    _tell(outcome)
    for split, (clips, frames, subjects) in split_counts(outcome.clips).items():
        print(f"{split}: {clips} clips, {frames} frames, {subjects} subjects")
    if arguments.encoder != "none":
        from sedtalker.data.store_features import cache_store_features

        sounds = cache_store_features(open_store(arguments.output), arguments.encoder)
        print(f"features: {arguments.encoder} of {sounds} sounds, shared by the variants of a sentence")
    print(f"{arguments.output}: {len(outcome.clips)} clips at {outcome.fps:g} fps, {len(outcome.refused)} refused")
    return 1 if outcome.refused else 0


def _prepare_speech(arguments: argparse.Namespace) -> int:
    """Add a corpus of emotional speech to a manifest."""
    from sedtalker.data.speech_corpora.registry import add_corpus, summary

    print(summary(add_corpus(arguments.output, arguments.corpus, arguments.source)))
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Check a store or a corpus; exit code 1 if something is wrong with a clip."""
    from sedtalker.data.prepare import Options, check_source, check_store
    from sedtalker.data.vertex_store import is_store, open_store

    if is_store(arguments.folder):
        store = open_store(arguments.folder)
        wrong, count = check_store(store), len(store)
        _list("refused", [f"{name}: {reason}" for name, reason in wrong.items()])
    else:
        options = Options(arguments.fps, arguments.source_fps, scale=arguments.scale)
        outcome = check_source(_read(arguments.corpus, arguments.folder, arguments), options)
        _tell(outcome)
        wrong, count = outcome.refused, len(outcome.clips) + len(outcome.refused)
    print(f"{arguments.folder}: {count - len(wrong)} of {count} clips are in order")
    return 1 if wrong else 0


def run_synthesize(arguments: argparse.Namespace) -> int:
    """Make a corpus of the default head."""
    if arguments.to == "store":
        return _make_store(arguments)
    return _make_heads(arguments) if arguments.spoken or arguments.speech else _make_syllables(arguments)


def _make_store(arguments: argparse.Namespace) -> int:
    """The store that the default talker trains on, with its features."""
    from sedtalker.speech import FRAME_RATE
    from sedtalker.synthesis.rig_clips import Sources, build_store

    output = arguments.output
    sources = Sources(arguments.spoken, arguments.grid, arguments.facegood, arguments.speech, tuple(arguments.phones))
    clips = build_store(output, sources, arguments.most)
    print(f"{output}: {len(clips)} clips, {sum(clip.frames for clip in clips) / FRAME_RATE / 3600:.2f} h")
    return 0


def _make_heads(arguments: argparse.Namespace) -> int:
    """An EmoVOCA of speech with known phones."""
    from sedtalker.face.assets import identities, load_face
    from sedtalker.synthesis.aligned_speech import acted_speech, known_phones, opened, spoken_folder
    from sedtalker.synthesis.talking_heads import assign_subjects, write_corpus

    speech = [*islice(spoken_folder(arguments.spoken), arguments.most)] if arguments.spoken else []
    if arguments.speech:
        manifest = opened(arguments.speech, arguments.most)
        known = known_phones([manifest], arguments.phones, arguments.output / "phones.tsv")
        speech += acted_speech(manifest, known)
    faces = [load_face(name) for name in arguments.identities or identities()]
    subjects = assign_subjects(speech, faces, arguments.sentences)
    made = write_corpus(arguments.output, subjects, arguments.fps)
    print(f"{arguments.output}/New_EmoVOCA: {made} sequences of {len(subjects)} subjects")
    return 0


def _make_syllables(arguments: argparse.Namespace) -> int:
    """An EmoVOCA of syllables."""
    from sedtalker.data.vertex_corpora.vocaset import SENTENCES, SPLITS
    from sedtalker.face.assets import load_face
    from sedtalker.synthesis.emovoca_like import Size, synthesize_emovoca

    test, validation, *others = SPLITS["test"][0], SPLITS["validation"][0], *SPLITS["train"]
    subjects = (others[0], test, validation, *others[1:], SPLITS["validation"][1], SPLITS["test"][1])
    size = Size(
        subjects=subjects[: arguments.subjects],
        sentences=SENTENCES[20 : 20 + arguments.sentences],
        seconds=arguments.seconds,
    )
    made = synthesize_emovoca(arguments.output, load_face(), size, arguments.seed)
    print(f"{arguments.output}/New_EmoVOCA: {made} sequences")
    return 0


def _read(corpus: str, source: Path, arguments: argparse.Namespace) -> Source:
    if corpus == "emovoca":
        from sedtalker.data.vertex_corpora.emovoca import read_emovoca

        return read_emovoca(source, arguments.templates, arguments.all_expressions)
    if corpus == "vocaset":
        from sedtalker.data.vertex_corpora.vocaset import read_vocaset

        return read_vocaset(source)
    if corpus == "biwi":
        from sedtalker.data.vertex_corpora.biwi import read_biwi

        return read_biwi(source, arguments.templates)
    from sedtalker.data.vertex_corpora.own import read_own

    return read_own(source, arguments.templates)


def _tell(outcome: Outcome) -> None:
    for note in outcome.notes:
        print(note)
    _list("missing", outcome.missing)
    _list("refused", [f"{name}: {reason}" for name, reason in outcome.refused.items()])


def _list(title: str, lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"{title}: {line}")
    if len(lines) > SHOWN:
        print(f"{title}: and {len(lines) - SHOWN} more")

"""`python -m sedtalker.recipes NAME`: how the packaged weights, the head and the pictures were made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from sedtalker.errors import SEDTalkerError, UsageError

RECIPES = {
    "align": "phones with times from recordings and their words",
    "average_weights": "the mean of talkers that were fine-tuned from the same one",
    "cache_features": "speech features of a manifest or store",
    "calibrate_intensity": "the range of a diarizer's intensities, from the levels that actors and listeners gave",
    "calibrate_tracker": "the face tracker's map to action units, from generated clips",
    "concatenate": "recordings whose emotion changes at known times",
    "default_diarizer": "the packaged diarizers' weights",
    "default_talker": "the default talker's weights",
    "demo_audio": "the demo's audio",
    "diarizer_teacher": "a diarizer on several encoders, and its outputs for a student",
    "encoder_windows": "a comparison of encoder windows: cost and accuracy",
    "ensemble_diarizers": "an ensemble of trained diarizers",
    "export_pictures": "the pictures of exports and pages in the README",
    "expression_gain": "what generated expressions add to a recogniser of action-unit sequences",
    "fit_association": "the association of action units and expressions, from measured faces",
    "fit_expression_timing": "onset and offset of expressions on measured faces",
    "fit_visemes": "opening and dominance of visemes, fitted to tracked lips",
    "frame_benchmark": "the frame-level benchmark of emotion diarization, from CREMA-D",
    "full_size_corpus": "a synthetic corpus of the size and layout of EmoVOCA, VOCASET or BIWI",
    "generative_classifier": "a comparison of a diffusion classifier with a discriminative one, clean and disturbed",
    "head_asset": "the head, from the files of MakeHuman",
    "head_axes": "the shapes of the head by sex, age, ancestry, weight and muscle",
    "leave_one_corpus_out": "diarizers trained without each corpus in turn, and their accuracy on it",
    "lip_readouts": "readouts of a talker's stack that show tongue and rounding at doubtful phones too",
    "lip_teacher": "pseudo-labels of the lip gap and mouth width of synthetic motion",
    "phone_sheet": "close-ups of a talker's mouth by phone",
    "readme_pictures": "the pictures of the README",
    "self_made_certificate": "the certificate of self-made C2PA manifests",
    "spoken_languages": "sentences of eleven languages by espeak-ng, with phones, to count lip closures",
    "streaming_encoder": "the streaming speech encoder, fine-tuned from Whisper tiny.en",
    "streaming_parity": "mouth opening streamed against whole-file, and lip timing by emotion",
    "training_cost": "speed, memory and FLOPs of a talker's training, and an estimate of its time on a GPU",
    "tune_encoder": "an interpolation of a fine-tuned speech encoder and its original",
}
"""Name of a recipe and what it makes. Each is a module with `add_arguments(parser)` and `run(arguments)`."""

_MODULES = {"head_asset": "head_asset.recipe"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a recipe; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m sedtalker.recipes",
        description=__doc__,
        epilog="\n".join(f"{name:22} {purpose}" for name, purpose in RECIPES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=RECIPES, metavar="NAME")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the recipe; NAME --help lists them")
    chosen = parser.parse_args(argv)
    recipe = import_module(f"sedtalker.recipes.{_MODULES.get(chosen.name, chosen.name)}")
    recipe_parser = argparse.ArgumentParser(
        prog=f"{parser.prog} {chosen.name}",
        description=recipe.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recipe.add_arguments(recipe_parser)
    try:
        recipe.run(recipe_parser.parse_args(chosen.arguments))
    except SEDTalkerError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

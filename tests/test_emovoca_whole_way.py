"""The commands of a researcher: prepare, train a few steps, evaluate; a second run gives the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import vertex_corpora as made

pytest.importorskip("lightning")

from sedtalker.cli.main import main
from sedtalker.resources import config

TINY = (
    "model.width=32", "model.order=[mamba+moe, attention]", "model.expert_hidden=32", "model.heads=2",
    "model.kv_heads=1", "model.window=10", "model.coefficients=8", f"model.vertices={made.VERTICES}", "steps=6",
    "validate_every=3", "batch_size=2", "window=1.0", "warmup=2", "workers=0", "trainer.enable_progress_bar=false",
    "trainer.enable_model_summary=false",
)  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The generator's layout with its quirks: a pointer file, an extra subject, a sentence that is missing."""
    subjects = (made.TRAIN, made.OTHER_TRAIN, made.VALIDATION, made.TEST, "FaceTalk_990101_00001_TA")
    root = made.generator_layout(tmp_path, subjects, ("sentence23", "sentence24"))
    for path in (root / "sequences").glob(f"{made.OTHER_TRAIN}_sentence24_*"):
        path.unlink()
    (root / "sequences" / f"{made.TEST}_sentence23_Afraid_1.npy").write_bytes(made.POINTER)
    masks = {"lips": [1, 2, 3], "upper_face": [10, 11], "emotion": [1, 2, 10, 12]}
    (tmp_path / "masks.json").write_text(json.dumps(masks))
    return tmp_path


def way(corpus: Path, name: str) -> dict:
    """Train on the store, evaluate on its test split and return the report."""
    store, run = corpus / "store", corpus / name
    file = config("talker", "emovoca.yaml")
    assert main(["train", "talker", "--config", str(file), f"store={store}", f"output={run}", *TINY]) == 0
    report = ["-o", str(run / "report.json"), "--masks", str(corpus / "masks.json")]
    assert main(["evaluate", "talker", str(run / "model"), str(store), *report]) == 0
    return json.loads((run / "report.json").read_text())


def test_prepare_train_evaluate_twice(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "emovoca", str(corpus), "-o", str(corpus / "store")]) == 1  # one file is a pointer
    output = capsys.readouterr().out
    for expected in (
        "60 Hz (by the length of the sounds) -> 30 fps",
        f"missing: {made.OTHER_TRAIN} sentence24 (the published archive lacks it as well)",
        f"refused: {made.TEST}_sentence23_Afraid_1: a Git LFS pointer",
        "subjects without a split, kept as 'unused': FaceTalk_990101_00001_TA",
        "features: whisper-tiny.en, 9 audio files",
        "17 clips at 30 fps, 1 refused",
    ):
        assert expected in output
    first = way(corpus, "first")
    table = capsys.readouterr().out
    assert "3 sequences, 90 frames at 30 fps, split: test" in table and "masks.json: lips (3 vertices" in table
    assert list(first["systems"]) == ["talker", "still face", "mean motion", "linear", "truth"]
    assert first["measures"]["lve"]["unit"] == "m^2" and set(first["systems"]["talker"]["by emotion"]) == {
        "happy",
        "fear",
    }
    assert way(corpus, "second") == first


@pytest.mark.slow
def test_it_learns_a_few_clips(corpus: Path) -> None:
    """Overfitting leaves at most 5 % of the error energy of a still face."""
    store, run = corpus / "store", corpus / "run"
    main(["data", "prepare", "emovoca", str(corpus), "-o", str(store)])
    learns = ["model.coefficients=40", "model.dropout=0", "steps=400", "validate_every=200", "lr=1e-2", "batch_size=4"]
    sources = [f"store={store}", f"output={run}", "style_dropout=1.0", "workers=1"]
    overrides = [*TINY, *learns, *sources, "--overfit-one"]
    assert main(["train", "talker", "--config", str(config("talker", "emovoca.yaml")), *overrides]) == 0
    report = run / "report.json"
    main(["evaluate", "talker", str(run / "model"), str(store), "--split", "train", "-o", str(report)])
    figures = json.loads(report.read_text())["by_sequence"]
    learned = next(name for name in sorted(figures["talker"]) if name.startswith(made.TRAIN))
    energy = {system: figures[system][learned]["ffe"] for system in ("talker", "still face")}
    assert energy["talker"] < 0.05 * energy["still face"]


def test_the_paper_s_decoder_on_flame_s_vertices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`paper.yaml` with another encoder of its kind, both made small; then with features that it does not read."""
    transformers = pytest.importorskip("transformers")
    made.generator_layout(tmp_path, sentences=("sentence21",), vertices=5023)
    tiny = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    encoder, store, run = tmp_path / "encoder", tmp_path / "store", tmp_path / "run"
    transformers.Wav2Vec2Model(tiny).save_pretrained(encoder)
    prepare = ["data", "prepare", "emovoca", str(tmp_path), "-o", str(store), "--encoder", str(encoder)]
    assert main(prepare) == 0
    file, short = str(config("talker", "paper.yaml")), ["steps=4", "validate_every=2", "batch_size=2", "window=0.5"]
    (tmp_path / "masks.json").write_text(json.dumps({"lips": [3530, 3531, 3504]}))
    sizes = ["model.width=64", "model.expert_hidden=64", f"masks={tmp_path / 'masks.json'}"]
    settings = [f"store={store}", f"output={run}", *short, *sizes]
    assert main(["train", "talker", "--config", file, *settings]) == 1
    output = capsys.readouterr().err.strip().splitlines()[-1]
    way_out = f"model.encoder={encoder} model.layers=3 model.feature_width=32"
    assert "talker that reads facebook/wav2vec2-large-xlsr-53 (25 of 1024)" in output and way_out in output
    assert main(["train", "talker", "--config", file, *settings, *way_out.split()]) == 0
    assert "lips_mm" in capsys.readouterr().out
    report = tmp_path / "report.json"
    assert main(["evaluate", "talker", str(run / "model"), str(store), "-o", str(report)]) == 0
    assert json.loads(report.read_text())["systems"]["talker"]["overall"]["mve"]["value"] < 0.01  # metres
    (store / "features" / "encoder.json").write_text('{"encoder": "another"}')
    assert main(["evaluate", "talker", str(run / "model"), str(store)]) == 1
    assert "features of another (3 layers of 32)" in capsys.readouterr().err


def test_own_data_is_checked_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.own_folder(tmp_path / "own")
    assert main(["data", "check", str(folder)]) == 0
    assert "3 of 3 clips are valid" in capsys.readouterr().out
    np.save(folder / "take_02.npy", np.load(folder / "take_02.npy")[:, ::-1])
    assert main(["data", "check", str(folder)]) == 1
    output = capsys.readouterr().out
    assert "refused: take_02: it does not fit the template: another order of vertices" in output
    assert "2 of 3 clips are valid" in output

"""Configurations: every field of every dataclass is checked, and each refusal is one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz_files import EDITS, NIGHTLY, QUICK, damage

pytest.importorskip("lightning")

from sedtalker.errors import DataError, SEDTalkerError
from sedtalker.resources import config
from sedtalker.training.config import build, read_config
from sedtalker.training.diarizer_config import DiarizerTraining
from sedtalker.training.talker import TalkerTraining

REQUIRED = {
    DiarizerTraining: {"manifest": "m", "features": ["f"], "output": "o"},
    TalkerTraining: {"store": "s", "output": "o"},
}
WRONG = {  # values that YAML gives and no field of the type takes
    bool: ("yes please", 1, None, [True], {}),
    int: ("three", 1.5, True, None, [1], {}),
    float: ("fast", True, None, [1.0], {}, ".nan", "inf"),
    str: (3, 1.5, True, None, ["a"], {}),
}


def wrong_values(hint: Any) -> list[Any]:
    if hint is Any:
        return []
    if dataclasses.is_dataclass(hint):
        return ["text", 3, ["a"], {"unknown": 1}]
    if hint in WRONG:
        return list(WRONG[hint])
    kinds = get_args(hint)
    if getattr(hint, "__origin__", None) is tuple:
        items = [[value] for value in wrong_values(kinds[0])]
        return ["CACHE", "train", 3, True, None, {}, *items]
    if getattr(hint, "__origin__", None) is dict:
        return ["x", 3, None, ["a"], *({"name": value} for value in wrong_values(kinds[1]))]
    (kind,) = (kind for kind in kinds if kind is not type(None))  # kind | None
    return [value for value in wrong_values(kind) if value is not None]


def fields_of(kind: type, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """The path and type of every field, at every depth."""
    found = []
    for name, hint in get_type_hints(kind).items():
        found.append(((*path, name), hint))
        if dataclasses.is_dataclass(hint):
            found += fields_of(hint, (*path, name))
    return found


@pytest.mark.parametrize("kind", [DiarizerTraining, TalkerTraining])
def test_every_field_refuses_values_of_other_types(kind: type) -> None:
    tried = 0
    for path, hint in fields_of(kind):
        for value in wrong_values(hint):
            values: dict[str, Any] = dict(REQUIRED[kind])
            inner = values
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
            inner[path[-1]] = value
            with pytest.raises(DataError) as refusal:
                build(kind, values, "c.yaml")
            assert "c.yaml" in str(refusal.value) and path[-1] in str(refusal.value), (path, value)
            assert "\n" not in str(refusal.value)
            tried += 1
    assert tried > 150


@pytest.mark.parametrize("kind", [DiarizerTraining, TalkerTraining])
def test_the_defaults_are_read_back(kind: type) -> None:
    plain = dataclasses.asdict(build(kind, REQUIRED[kind], "c.yaml"))
    assert dataclasses.asdict(build(kind, plain, "c.yaml")) == plain


@pytest.mark.parametrize(
    ("kind", "override", "found"),
    [
        (DiarizerTraining, "features=CACHE", r"a list expected, not 'CACHE'.*features.*\[CACHE\]"),
        (DiarizerTraining, "splits=train", "a list expected"),
        (DiarizerTraining, "steps=true", "a whole number expected, not True"),
        (DiarizerTraining, "frozen_layers=three", "a whole number expected"),
        (DiarizerTraining, "corpus_weights=x", "name: value pairs expected"),
        (DiarizerTraining, "corpus_weights.esd=much", "a number expected.*esd"),
        (DiarizerTraining, "mixing.patterns=[[a, 1, 2]]", "a list of 2 expected"),
        (DiarizerTraining, "model.absent=upset", "a list expected"),
        (DiarizerTraining, "features=[]", "features is empty"),
        (DiarizerTraining, "label_smoothing=1.5", "label_smoothing is 1.5. Set it to a value from 0 to 1"),
        (DiarizerTraining, "features=[a", "cannot read 'features=\\[a'"),
        (TalkerTraining, "model.order=mamba", "a list expected"),
        (TalkerTraining, "steps=0", "steps is 0. Set it to 1 or more"),
        (TalkerTraining, "warmup=-1", "warmup is -1. Set it to 0 or more"),
        (TalkerTraining, "validate_every=0", "validate_every is 0"),
        (TalkerTraining, "accumulate_grad_batches=0", "accumulate_grad_batches is 0"),
        (TalkerTraining, "threads=0", "threads is 0"),
        (TalkerTraining, "window=0.001", "window is 0.001 s"),
        (TalkerTraining, "style_dropout=2", "style_dropout is 2"),
        (TalkerTraining, "seed=-1", "seed is -1"),
        (TalkerTraining, "source_weights.grid=-1", "source_weights is -1"),
        (TalkerTraining, "losses.velocity=-1", "velocity is -1"),
        (TalkerTraining, "logger=wandb", "logger is 'wandb'. Set it to csv, tensorboard or both"),
        (TalkerTraining, "trainer.devises=2", "trainer.devises is not a flag"),
        (TalkerTraining, "model.head=none", "none"),
    ],
)
def test_wrong_overrides_are_refused_in_one_line(kind: type, override: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in REQUIRED[kind].items()))
    with pytest.raises(DataError, match=found) as refusal:
        read_config(path, [override], kind)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"text", b"\xff\xfe\x00", b"a: [", b"1: 2\nb: 3\n", b""])
def test_files_without_settings_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"c\.yaml") as refusal:
        read_config(path, ["output=o"], TalkerTraining)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_configuration_in_another_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("# größer\nstore: s\noutput: é\n".encode(encoding))
    assert read_config(path, [], TalkerTraining).output == read_config(path, ["output=é"], TalkerTraining).output


def test_an_override_fills_a_part_that_the_file_leaves_empty(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("store: s\noutput: o\nlosses:\n")
    assert read_config(path, ["losses.lips=1e-2"], TalkerTraining).losses.lips == 0.01


FILES = sorted(config("talker").glob("*.yaml")) + sorted(config("diarizer").glob("*.yaml"))
KINDS = {"talker": TalkerTraining, "diarizer": DiarizerTraining}
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
    | st.sampled_from(["auto", "1e-3", ".inf", "emovoca", "train", "mamba+moe", 10**400, -1, 0, 1])
)  # fmt: skip
NAMES = st.sampled_from(
    [
        *(field.name for kind in KINDS.values() for field in dataclasses.fields(kind)),
        "width",
        "order",
        "closure",
        "grid",
        "",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | SCALARS, inner, max_size=4)
)
OVERRIDES = st.lists(st.tuples(NAMES, st.text("abc01.-=:,[]{}&*!?|>%@ \"'#\t\n", max_size=10)), max_size=3)


def check_settings(path: Path, kind: type, overrides: list[str] | None = None) -> None:
    """Reading works, or raises a SEDTalkerError of one line."""
    try:
        assert isinstance(read_config(path, overrides or [], kind), kind)
    except SEDTalkerError as error:
        assert "\n" not in str(error) and str(error)


def check_damaged_file(folder: Path, file: Path, edits: list) -> None:
    path = folder / "settings.yaml"
    path.write_bytes(damage(file.read_bytes(), edits))
    check_settings(path, KINDS[file.parent.name])


def check_random_settings(folder: Path, kind: type, values: Any, overrides: list[tuple[str, str]]) -> None:
    path = folder / "settings.yaml"
    path.write_text(yaml.dump(values, allow_unicode=True), encoding="utf-8")
    check_settings(path, kind, [f"{name}={text}" for name, text in overrides])


@pytest.mark.parametrize(
    "value",
    ["2024-13-45", "1" * 5000, "0b_", "!!int abc", "!!bool x", "!!timestamp x", "[" * 500, "&a [*a]", "&a {b: *a}",
     "[&a [x, x, x], &b [*a, *a, *a], &c [*b, *b, *b], &d [*c, *c, *c], [*d, *d, *d]]"],
)  # fmt: skip
def test_values_on_which_the_yaml_library_fails_are_refused_in_one_line(tmp_path: Path, value: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"store: s\noutput: o\nseed: {value}\n")
    with pytest.raises(DataError) as from_file:
        read_config(path, [], TalkerTraining)
    path.write_text("store: s\noutput: o\n")
    with pytest.raises(DataError) as from_override:
        read_config(path, [f"seed={value}"], TalkerTraining)
    for error in (from_file, from_override):
        assert "\n" not in str(error.value) and len(str(error.value)) < 6000


@QUICK
@given(file=st.sampled_from(FILES), edits=EDITS)
def test_damaged_files(tmp_path: Path, file: Path, edits: list) -> None:
    check_damaged_file(tmp_path, file, edits)


@settings(QUICK, max_examples=200)
@given(kind=st.sampled_from(list(KINDS.values())), values=st.dictionaries(NAMES, VALUES) | VALUES, overrides=OVERRIDES)
def test_random_settings(tmp_path: Path, kind: type, values: Any, overrides: list[tuple[str, str]]) -> None:
    check_random_settings(tmp_path, kind, values, overrides)


@pytest.mark.nightly
@NIGHTLY
@given(file=st.sampled_from(FILES), edits=EDITS)
def test_damaged_files_nightly(tmp_path: Path, file: Path, edits: list) -> None:
    check_damaged_file(tmp_path, file, edits)


@pytest.mark.nightly
@NIGHTLY
@given(kind=st.sampled_from(list(KINDS.values())), values=st.dictionaries(NAMES, VALUES) | VALUES, overrides=OVERRIDES)
def test_random_settings_nightly(tmp_path: Path, kind: type, values: Any, overrides: list[tuple[str, str]]) -> None:
    check_random_settings(tmp_path, kind, values, overrides)


def test_a_misspelled_setting_is_answered_with_the_similar_ones(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("store: made\nstpes: 3\n")
    with pytest.raises(DataError, match=r"unknown setting 'stpes': .*a\.yaml\. Use one of: steps(, \w+)*$"):
        read_config(tmp_path / "a.yaml", [], TalkerTraining)

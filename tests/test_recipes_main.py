"""The one entry point of the recipes: every name works, wrong usage and errors are one line."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import pytest

from sedtalker.recipes import __main__ as entry


@pytest.mark.parametrize("name", entry.RECIPES)
def test_every_recipe_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        entry.main([name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: python -m sedtalker.recipes {name}" in shown
    recipe = import_module(f"sedtalker.recipes.{name if name != 'head_asset' else 'head_asset.recipe'}")
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    assert len(parser._actions) > 1  # more than --help


def test_every_module_with_arguments_is_a_recipe() -> None:
    folder = Path(entry.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "\ndef add_arguments(" in path.read_text("utf-8")}
    assert modules and modules <= set(entry.RECIPES)


def test_an_unknown_recipe_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        entry.main(["no_such_recipe"])
    assert end.value.code == 2
    assert "no_such_recipe" in capsys.readouterr().err


def test_an_error_is_one_line(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.json").write_text("{}")
    assert entry.main(["cache_features", str(tmp_path / "empty.json"), "-o", str(tmp_path / "cache")]) == 1
    written = capsys.readouterr().err
    assert written.count("\n") == 1 and "empty.json" in written
    assert not (tmp_path / "cache").exists()

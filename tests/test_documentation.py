"""Commands in READMEs, model cards and configurations: their options, settings and paths exist."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from sedtalker.cli.main import build_parser
from sedtalker.recipes.__main__ import _MODULES
from sedtalker.resources import asset, config

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", *sorted((ROOT / "sedtalker").rglob("README.md"))]
DOCUMENTS = sorted({*READMES, *asset().rglob("*.md"), *config().rglob("*.yaml")} - set(asset("fonts").rglob("*")))
PLACEHOLDER = re.compile(r"\bravdess\|\S*|\bvocaset\|\S*|\$c\b")


def commands(text: str) -> list[list[str]]:
    """Arguments of every `sedtalker` and `python -m sedtalker.recipes` command, with shell variables expanded."""
    text = text.replace("\\\n", " ")
    text = re.sub(r"`([^`\n]*)\n([^`\n]*)`", r"`\1 \2`", text)  # inline code that is wrapped
    variables: dict[str, str] = {}
    found = []
    for line in text.splitlines():
        spans = re.findall(r"`([^`]+)`", line) if "`" in line else [line]
        for part in (part.strip(" #;") for span in spans for part in span.split("; ")):
            if assignment := re.fullmatch(r'([A-Z])="(.*)"', re.sub(r"\s+#.*", "", part)):
                variables[assignment[1]] = _expand(assignment[2], variables)
                continue
            part = re.sub(r"^do ", "", _expand(part, variables)).replace(".venv/bin/", "")
            if re.match(r"sedtalker [a-z]|python -m sedtalker\.recipes [a-z]", part) and "..." not in part:
                found.append(shlex.split(PLACEHOLDER.sub("emovoca", part), comments=True))
    return found


def _expand(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$([A-Z])\b", lambda name: variables.get(name[1], name[0]), text)


EXAMPLES = [(path, command) for path in DOCUMENTS for command in commands(path.read_text(encoding="utf-8"))]


def test_there_are_examples() -> None:
    names = {path.name for path, _ in EXAMPLES}
    assert len(EXAMPLES) > 60 and {"README.md", "demo.md", "default.yaml", "emovoca.yaml"} <= names


@pytest.mark.parametrize(
    ("path", "command"), EXAMPLES, ids=[f"{p.parent.name}/{p.name}:{' '.join(c)[:60]}" for p, c in EXAMPLES]
)
def test_a_documented_command_is_accepted(path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if command[0] == "sedtalker":
        parser, arguments = build_parser(), command[1:]
    else:
        name, arguments = command[3], command[4:]
        parser = argparse.ArgumentParser()
        import_module(f"sedtalker.recipes.{_MODULES.get(name, name)}").add_arguments(parser)
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit:  # a text may name a command without its required arguments
        assert "arguments are required" in capsys.readouterr().err
        return
    if getattr(parsed, "command", None) == "train":
        check_settings(parsed)


def check_settings(parsed: argparse.Namespace) -> None:
    pytest.importorskip("lightning")
    from sedtalker.training.config import read_config
    from sedtalker.training.diarizer_config import DiarizerTraining
    from sedtalker.training.talker import TalkerTraining

    file, *overrides = parsed.config
    read_config(ROOT / file, overrides, DiarizerTraining if parsed.model == "diarizer" else TalkerTraining)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_of_the_readmes_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_the_source_tree_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"sedtalker/[a-z_]+(?:\.py|/)", text[text.index("## Source tree") :]):
        assert (ROOT / target).exists(), target


def test_folders_with_more_to_read_are_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("serve", "export", "face", "provenance", "evaluation", "training"):
        assert f"](sedtalker/{name}/README.md)" in text

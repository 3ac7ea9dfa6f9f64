"""Captions from subtitles, words with times, and bare texts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from sedtalker.errors import RenderError
from sedtalker.render.captions import caption_file, read_captions


def _read(tmp_path: Path, name: str, text: str, seconds: float = 10.0) -> list[tuple[float, float, str]]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_captions(path, seconds)


def test_subtitles_are_shown_as_they_are(tmp_path):
    srt = "1\n00:00:01,500 --> 00:00:02,250\nIt is\n<i>eleven</i>\n\n2\n01:00:03,000 --> 01:00:04,000\no'clock.\n"
    expected = [(1.5, 2.25, "It is eleven"), (3603.0, 3604.0, "o'clock.")]
    assert _read(tmp_path, "a.srt", srt) == expected
    vtt = "WEBVTT\n\n00:01.500 --> 00:02.250 align:start\nIt is eleven\n\n01:00:03.000 --> 01:00:04.000\no'clock.\n"
    assert _read(tmp_path, "a.vtt", vtt) == expected


def test_words_come_together_until_a_sentence_or_a_pause_ends_them(tmp_path):
    rows = "start,end,word\n0.1,0.3,It\n0.3,0.5,is.\n0.6,0.9,Never\n2.0,2.2,mind\n"
    assert _read(tmp_path, "a.csv", rows) == [(0.1, 0.5, "It is."), (0.6, 0.9, "Never"), (2.0, 2.2, "mind")]
    long = "start\tend\ttext\n" + "".join(f"{k / 10}\t{(k + 1) / 10}\tword{k}\n" for k in range(40))
    captions = _read(tmp_path, "a.tsv", long)
    assert max(len(said) for _, _, said in captions) <= 65
    assert " ".join(said for _, _, said in captions).split() == [f"word{k}" for k in range(40)]


def test_a_bare_text_fills_the_length_in_order(tmp_path):
    text = (
        "One two three. Four!\nFive six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen."
    )
    captions = _read(tmp_path, "a.txt", text, 20.0)
    assert [said for _, _, said in captions][:2] == ["One two three.", "Four!"]
    assert captions[0][0] == 0
    assert captions[-1][1] == pytest.approx(20.0)
    assert all(before[1] == after[0] for before, after in pairwise(captions))


def test_what_holds_no_captions_is_told(tmp_path):
    for name, text in (("a.srt", "nothing"), ("a.csv", "from,to\n1,2\n"), ("a.txt", " "), ("a.pdf", "x")):
        with pytest.raises(RenderError, match="no captions"):
            _read(tmp_path, name, text)
    with pytest.raises(RenderError, match="cannot be read"):
        _read(tmp_path, "a.csv", "start,end,word\nsoon,later,now\n")


def test_a_folder_has_a_file_for_each_input(tmp_path):
    (tmp_path / "a.txt").write_text("said")
    assert caption_file(tmp_path, Path("somewhere/a.wav")) == tmp_path / "a.txt"
    assert caption_file(tmp_path / "a.txt", Path("b.wav")) == tmp_path / "a.txt"
    with pytest.raises(RenderError, match=r"no captions: .*b\.srt"):
        caption_file(tmp_path, Path("b.wav"))

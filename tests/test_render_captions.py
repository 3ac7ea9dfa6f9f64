"""Captions from subtitles, words with times, and bare texts."""

from __future__ import annotations

import codecs
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from hypothesis import given, settings
from hypothesis import strategies as st

from sedtalker.errors import RenderError, SEDTalkerError
from sedtalker.render import fonts
from sedtalker.render.captions import SUFFIXES, active_captions, caption_file, check_captions, read_captions
from sedtalker.render.fonts import check_font, check_letters, split_runs
from sedtalker.render.text import draw_captions, draw_text_line, fit_captions
from sedtalker.resources import asset


def _read(tmp_path: Path, name: str, text: str, seconds: float = 10.0) -> list[tuple[float, float, str]]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_captions(path, seconds)


def test_subtitles_are_read_with_their_times(tmp_path):
    srt = "1\n00:00:01,500 --> 00:00:02,250\nIt is\n<i>eleven</i>\n\n2\n01:00:03,000 --> 01:00:04,000\no'clock.\n"
    expected = [(1.5, 2.25, "It is eleven"), (3603.0, 3604.0, "o'clock.")]
    assert _read(tmp_path, "a.srt", srt) == expected
    vtt = "WEBVTT\n\n00:01.500 --> 00:02.250 align:start\nIt is eleven\n\n01:00:03.000 --> 01:00:04.000\no'clock.\n"
    assert _read(tmp_path, "a.vtt", vtt) == expected


def test_words_are_grouped_up_to_a_sentence_end_or_a_pause(tmp_path):
    rows = "start,end,word\n0.1,0.3,It\n0.3,0.5,is.\n0.6,0.9,Never\n2.0,2.2,mind\n"
    assert _read(tmp_path, "a.csv", rows) == [(0.1, 0.5, "It is."), (0.6, 0.9, "Never"), (2.0, 2.2, "mind")]
    long = "start\tend\ttext\n" + "".join(f"{k / 10}\t{(k + 1) / 10}\tword{k}\n" for k in range(40))
    captions = _read(tmp_path, "a.tsv", long)
    assert max(len(word) for _, _, word in captions) <= 65
    assert " ".join(word for _, _, word in captions).split() == [f"word{k}" for k in range(40)]


def test_plain_text_is_distributed_over_the_length(tmp_path):
    text = (
        "One two three. Four!\nFive six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen."
    )
    captions = _read(tmp_path, "a.txt", text, 20.0)
    assert [word for _, _, word in captions][:2] == ["One two three.", "Four!"]
    assert captions[0][0] == 0
    assert captions[-1][1] == pytest.approx(20.0)
    assert all(before[1] == after[0] for before, after in pairwise(captions))


def test_files_without_captions_are_rejected(tmp_path):
    for name, text in (("a.srt", "nothing"), ("a.csv", "from,to\n1,2\n"), ("a.txt", " "), ("a.pdf", "x")):
        with pytest.raises(RenderError, match="no captions"):
            _read(tmp_path, name, text)
    with pytest.raises(RenderError, match="cannot be read"):
        _read(tmp_path, "a.csv", "start,end,word\nsoon,later,now\n")


def test_caption_file_is_found_by_the_name_of_the_input(tmp_path):
    (tmp_path / "a.txt").write_text("said")
    assert caption_file(tmp_path, Path("somewhere/a.wav")) == tmp_path / "a.txt"
    assert caption_file(tmp_path / "a.txt", Path("b.wav")) == tmp_path / "a.txt"
    with pytest.raises(RenderError, match=r"no captions: .*b\.srt"):
        caption_file(tmp_path, Path("b.wav"))


TIMES = "00:00:00,000 --> 00:00:02,500"


def _words(tmp_path: Path, name: str, text: str) -> list[str]:
    return [word for _, _, word in _read(tmp_path, name, text)]


def test_tags_overrides_and_entities_are_removed(tmp_path):
    cue = f"1\n{TIMES}\n{{\\an8}}<font color='red'>Fish</font> &amp; {{\\i1}}chips{{\\i0}}<br/>&lt;now&gt;\n"
    assert _words(tmp_path, "a.srt", cue) == ["Fish & chips <now>"]
    braces = "1\n00:00:00,000 --> 00:00:02,500\nI <3 you, 1 < 2 > 0, a --> b {laughs}\n"
    assert _words(tmp_path, "a.srt", braces) == ["I <3 you, 1 < 2 > 0, a --> b {laughs}"]
    vtt = (
        "\ufeffWEBVTT - a title\nKind: captions\n\n"
        "STYLE\n::cue { color: red }\n\nREGION\nid:fred\n\nNOTE not this\nnor this\n\n"
        "intro 1\n00:00.000 --> 00:01.000 position:10%,line-left align:left\n"
        "<v.loud Anna>Hello&nbsp;<00:00.500><c.x>you</c>\n\n"
        "NOTE nor this\n\n00:01.000 --> 00:02.000\n- One\n- Two\n\n2\n00:00:02.000 --> 00:00:03.000\n2024\n"
    )
    assert _words(tmp_path, "a.vtt", vtt) == ["Hello you", "- One - Two", "2024"]
    ass = (
        "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default,Arial\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not this\n"
        "Dialogue: 0,0:00:01.50,0:00:02.25,Default,,0,0,0,,{\\pos(1,2)}It is,\\N{\\b1}eleven\n"
        "Dialogue: 0,0:00:01.50,0:00:02.25,Default,,0,0,0,,{\\p1}m 0 0 l 1 1{\\p0}\n"
    )
    assert _read(tmp_path, "a.ass", ass) == [(1.5, 2.25, "It is, eleven")]


def test_cues_without_empty_lines_keep_their_words_but_not_their_numbers(tmp_path):
    text = "1\n00:00:00,000 --> 00:00:01,000\nHello\n"
    text += "2\n00:00:01,000 --> 00:00:02,000\nIt is\n42\n3\n00:02.5 -> 00:03.25\n7"
    assert _read(tmp_path, "a.srt", text) == [(0, 1, "Hello"), (1, 2, "It is 42"), (2.5, 3.25, "7")]
    bare = "00:00:00,000 --> 00:00:01,000\n42\n00:00:01,000 --> 00:00:02,000\n43\n"
    assert _words(tmp_path, "b.srt", bare.replace("\n", "\r\n")) == ["42", "43"]


@pytest.mark.parametrize(
    "cue", ["00:00:x1 --> 00:00:02,000", "00:00:03,000 --> 00:00:02,000", "100:00:00,0 --> 101:00:00,0"]
)
def test_invalid_times_are_rejected(tmp_path, cue):
    with pytest.raises(RenderError, match=r"a\.srt") as caught:
        _read(tmp_path, "a.srt", f"1\n{cue}\nHello\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Café déjà vu", "cp1252"),
        ("It’s “fine” – naïve", "cp1252"),
        ("Zażółć gęślą jaźń", "cp1250"),
        ("Příliš žluťoučký kůň", "cp1250"),
        ("İyi günler, nasılsınız", "cp1254"),
        ("Добрый день, начинаем урок", "cp1251"),
        ("Привет, как дела сегодня? Очень хорошо", "koi8-r"),
        ("Привет, как дела сегодня? Очень хорошо", "cp866"),
        ("שלום לכולם, מה נשמע", "cp1255"),
        ("مرحبا بكم جميعا شكرا جزيلا", "cp1256"),
        ("Καλημέρα κόσμε, τι κάνεις", "cp1253"),
        ("今天又来到了大家最喜欢的单元", "gb18030"),
        ("Zażółć", "utf-8-sig"),
        ("Zażółć", "utf-16"),
        ("Hello there", "utf-16-le"),
        ("Hello there", "utf-16-be"),
        ("Hello", "utf-32"),
    ],
)
def test_subtitles_in_common_encodings_are_decoded(tmp_path, text, encoding):
    path = tmp_path / "a.srt"
    path.write_bytes(f"1\r\n00:00:00,000 --> 00:00:02,500\r\n{text}\r\n".encode(encoding))
    assert read_captions(path, 1.0) == [(0, 2.5, text)]
    if encoding == "utf-16":
        path.write_bytes(codecs.BOM_UTF16_BE + f"1\n00:00:00,000 --> 00:00:02,500\n{text}\n".encode("utf-16-be"))
        assert read_captions(path, 1.0) == [(0, 2.5, text)]


def test_a_caption_file_of_a_folder_is_found_in_any_case(tmp_path):
    (tmp_path / "Talk.SRT").write_text("")
    assert caption_file(tmp_path, Path("talk.wav")) == tmp_path / "Talk.SRT"


def test_milliseconds_of_whisper_are_recognised(tmp_path):
    assert _read(tmp_path, "a.tsv", "start\tend\ttext\n0\t1240\tHello.\n1240\t2500\tYou\n") == [
        (0, 1.24, "Hello."),
        (1.24, 2.5, "You"),
    ]
    assert _read(tmp_path, "b.tsv", "start\tend\ttext\n0\t1\tHello.\n1\t12\tYou\n") == [
        (0, 1, "Hello."),
        (1, 12, "You"),
    ]


def test_marks_of_unspaced_scripts_stay_with_their_letters(tmp_path):
    captions = _read(tmp_path, "a.txt", "\u0e01" + "\u0e14\u0e35" * 61)
    assert "".join(text for _, _, text in captions).replace(" ", "") == "\u0e01" + "\u0e14\u0e35" * 61
    assert not [text for _, _, text in captions if text.startswith("\u0e35")]


def test_tables_of_other_programs(tmp_path):
    assert _read(tmp_path, "a.csv", "Start;End;Text\n0;1,25;Hello\n") == [(0, 1.25, "Hello")]
    assert _read(tmp_path, "b.csv", 'sep=,\nonset,offset,word\n"0,5",1,Hello\n') == [(0.5, 1, "Hello")]
    with pytest.raises(RenderError, match="decimal comma"):
        _read(tmp_path, "c.csv", "start,end,word\n0,5,1,5,Hello\n")


# Written by hand from the alphabets: letters that people use, in eight scripts.
LINES = [
    "Zażółć gęślą jaźń",
    "Добрый день",
    "Καλημέρα",
    "今天又来到了大家最喜欢的单元",
    "歡迎",
    "こんにちは",
    "مرحبا بكم",
    "שלום",
    "नमस्ते दोस्तों",
    "Tiếng Việt",
    "e\u0301 \u00a0 don’t — “so” ☺\ufe0f",
]


@pytest.mark.parametrize("line", LINES)
def test_letters_of_other_scripts_are_not_drawn_as_boxes(line):
    check_letters([line])
    box = draw_text_line("\uffff", 24)
    for word in line.split():
        ink = draw_text_line(word, 24)
        assert ink.max() > 0.5
        assert ink.shape != box.shape or not np.array_equal(ink, box)


def test_english_is_drawn_in_one_font_and_other_scripts_fall_back_by_runs():
    assert split_runs("Hello, 2024!") == [("Hello, 2024!", fonts.DEFAULT_FONT)]
    assert [run for run, _ in split_runs("Hello 今天 नमस्ते")] == ["Hello ", "今天 ", "नमस्ते"]
    assert [run.strip() for run, _ in split_runs("今 مرحبا नम שלום") if run.strip()] == ["今", "مرحبا", "नम", "שלום"]
    assert [run.strip() for run, _ in split_runs("مرحبا 今天 नम") if run.strip()][-1] == "مرحبا"


def test_arabic_letters_are_joined_from_right_to_left():
    if not fonts.can_shape():
        pytest.skip("Pillow without raqm")
    apart = sum(draw_text_line(letter, 48).shape[1] for letter in "مرحبا")
    assert draw_text_line("مرحبا", 48).shape[1] < 0.95 * apart
    # A Hebrew line begins on the right: its last letter is drawn first.
    last, both = draw_text_line("ם", 48), draw_text_line("אם", 48)
    np.testing.assert_array_equal(both[:, 2 : last.shape[1] - 4], last[:, 2:-4])


def test_letters_without_a_font_are_reported_by_the_check(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    fonts._font_for.cache_clear()
    path = tmp_path / "a.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:02,500\nHi \U00012000\n", encoding="utf-8")
    try:
        with pytest.raises(RenderError, match=r"a\.srt.*U\+12000.*--font"):
            check_captions(path, 256, 256)
    finally:
        fonts._font_for.cache_clear()


def test_a_font_of_the_user_is_tried_first_and_checked(tmp_path):
    font = asset("fonts", "DejaVuSans.woff")
    check_font(font)
    assert not np.array_equal(draw_text_line("Hello", 24), draw_text_line("Hello", 24, font))
    (tmp_path / "a.ttf").write_bytes(b"no font")
    for path in (tmp_path / "a.ttf", tmp_path / "none.ttf"):
        with pytest.raises(RenderError, match=path.name):
            check_font(path)


def test_packaged_fonts_have_licences():
    folder = asset("fonts")
    names = json.loads(asset("licences.json").read_text(encoding="utf-8"))
    assert any("DejaVu" in entry["name"] for entry in names)
    for name in fonts.PACKAGED:
        assert TTFont(folder / name).getBestCmap()
        assert (folder / f"LICENSE-{Path(name).stem}.txt").stat().st_size > 500
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1.1e6


LONG = "In pursuit of these objectives we have started a new project for which we will require seven red lines. " * 2


@pytest.mark.parametrize(
    "texts",
    [
        [LONG],
        ["中文字幕" * 60],
        ["https://example.org/" + "address" * 30],
        ["مرحبا بكم في هذا العرض " * 12],
        [LONG, "Second one talks over it", "and a third"],
    ],
)
@pytest.mark.parametrize("size", [160, 256, 512])
def test_captions_fit_the_picture_and_lose_no_letter(texts, size):
    picture = np.full((size, size, 3), 90, np.uint8)
    draw_captions(picture, texts)
    ink = np.abs(picture.astype(int) - 90).max(axis=2)
    assert max(ink[:, :3].max(), ink[:, -3:].max(), ink[:1].max()) == 0
    _, _, lines = fit_captions(tuple(texts), size, size)
    assert "".join(lines).replace(" ", "") == "".join(texts).replace(" ", "")


def test_simultaneous_captions_are_drawn_one_above_another():
    both = np.zeros((256, 256, 3), np.uint8)
    draw_captions(both, ["First", "Second"])
    second = np.zeros_like(both)
    draw_captions(second, ["Second"])
    rows = np.flatnonzero(second.any(axis=(1, 2)))
    np.testing.assert_array_equal(both[rows[0] + 3 : rows[-1] + 1], second[rows[0] + 3 : rows[-1] + 1])
    assert both[: rows[0]].any()


def test_text_that_does_not_fit_is_rejected(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text(f"1\n00:00:00,000 --> 00:00:02,500\n{LONG * 20}\n", encoding="utf-8")
    with pytest.raises(RenderError, match=r"a\.srt.*--size"):
        check_captions(path, 128, 128)
    check_captions(path, 1024, 1024)


def test_later_captions_are_above_and_each_ends_at_its_time():
    captions = [(0.0, 2.0, "a"), (1.0, 3.0, "b"), (1.0, 1.5, "c")]
    assert [*active_captions(captions, [0.0, 1.2, 1.7, 2.0, 3.0])] == [("a",), ("b", "c", "a"), ("b", "a"), ("b",), ()]


_PIECES = st.sampled_from(
    [
        *(
            "1",
            "\n",
            "\r\n",
            "\n\n",
            "00:00:01,000",
            " --> ",
            "00:02.500",
            "WEBVTT",
            "NOTE",
            "<i>",
            "</",
            "&amp;",
            "Hello",
        ),
        *("&#x110000;", "{\\an8}", "{\\p1}", "é", "中", "\u202e", "\0", "start,end,word\n", "0;1,5;x\n", "[Events]\n"),
        *("Format: Text\n", "Dialogue: ", '"', ",", "99999999999", "-1", "nan", "1e400"),
    ]
)
_TEXTS = st.one_of(st.lists(_PIECES, max_size=30).map("".join), st.text(max_size=80))
_FILES = st.one_of(
    st.builds(
        lambda text, encoding: text.encode(encoding, "replace"),
        _TEXTS,
        st.sampled_from(["utf-8", "utf-16", "cp1252", "gb18030"]),
    ),
    st.binary(max_size=200),
)


def _read_anything(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        captions = read_captions(path, 3.0)
    except SEDTalkerError as error:
        assert "\n" not in str(error)
        return
    assert captions
    for start, end, word in captions:
        assert 0 <= start <= end < 1e7
        assert word.strip()


@settings(max_examples=200, deadline=None)
@given(_FILES, st.sampled_from(SUFFIXES))
def test_any_file_gives_captions_or_a_one_line_error(tmp_path_factory, data, suffix):
    _read_anything(tmp_path_factory.getbasetemp() / f"any{suffix}", data)


@pytest.mark.nightly
@settings(max_examples=100_000, deadline=None)
@given(_FILES, st.sampled_from(SUFFIXES))
def test_many_files_give_captions_or_a_one_line_error(tmp_path_factory, data, suffix):
    _read_anything(tmp_path_factory.getbasetemp() / f"many{suffix}", data)

"""The table of phones: written and read back, and refused in one line where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from sedtalker.errors import DataError
from sedtalker.phones import Phone, read_phones, write_phones

PHONES = {"a": (Phone("<sil>", "SIL", 0.0, 0.1), Phone("it's", "IH", 0.1, 0.25)), "b": (Phone('"', "T", 0.0, 0.05),)}


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_phones(tmp_path / "phones.tsv", PHONES)
    assert read_phones(tmp_path / "phones.tsv") == PHONES


def test_columns_may_have_another_order_and_delimiter(tmp_path: Path) -> None:
    (tmp_path / "phones.csv").write_text("phone,id,start,end,word\nIH,a,0.5,0.75,it\n")
    assert read_phones(tmp_path / "phones.csv") == {"a": (Phone("it", "IH", 0.5, 0.75),)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id\tword\tphone\tstart\nx\tx\tx\t0\n", "no column end"),
        ("id\tword\tphone\tstart\tend\nx\tx\tx\t0\n", "4 cells for 5 columns"),
        ("id\tword\tphone\tstart\tend\nx\tx\tx\tzero\t1\n", "start"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "phones.tsv").write_text(text)
    with pytest.raises(
        DataError, match=rf"^not a table of phones: .*phones\.tsv \(.*{reason}.*\)\. Write one with[^\n]*$"
    ):
        read_phones(tmp_path / "phones.tsv")


def test_a_missing_table_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.tsv"):
        read_phones(tmp_path / "nothing.tsv")

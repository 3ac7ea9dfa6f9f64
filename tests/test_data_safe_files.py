"""Pickles are read only if they hold arrays and plain containers; damaged arrays are errors."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from vertex_corpora import POINTER, python2_pickle

from sedtalker.data.safe_files import load_array_dict, load_pickle, open_array
from sedtalker.errors import DataError


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_containers_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    content = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(2), "c": [{1, 2}, b"x", (None, True, 1.5)]}
    path = tmp_path / "content.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    loaded = load_pickle(path)
    np.testing.assert_array_equal(loaded["a"], content["a"])
    assert loaded["b"] == content["b"] and loaded["c"] == content["c"]


def test_python_2_pickle(tmp_path: Path) -> None:
    arrays = {"FaceTalk_170809_00138_TA": np.linspace(-1, 1, 30).reshape(10, 3)}
    path = tmp_path / "templates.pkl"
    path.write_bytes(python2_pickle(arrays))
    assert b"numpy.core.multiarray" in path.read_bytes()
    np.testing.assert_array_equal(load_array_dict(path)["FaceTalk_170809_00138_TA"], arrays["FaceTalk_170809_00138_TA"])


@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "system"), (eval, "eval"), (subprocess.check_call, "check_call"), (getattr, "getattr")],
)
def test_a_malicious_pickle_is_refused_by_name(tmp_path: Path, function, named: str) -> None:
    witness = tmp_path / "witness"
    path = tmp_path / "templates.pkl"
    path.write_bytes(pickle.dumps({"template": Hostile(function, f"touch {witness}")}))
    with pytest.raises(DataError, match=rf"the pickle needs \w+\.{named}: .*templates\.pkl.*not loaded"):
        load_pickle(path)
    assert not witness.exists()


def test_codec_that_decompresses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.")
    with pytest.raises(DataError, match="codec 'zlib'"):
        load_pickle(path)


@pytest.mark.parametrize("content", [b"\x80\x02}(U\x05ab", b"no pickle at all", b"\x80\x02]."])
def test_damaged_or_other_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "templates.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"templates\.pkl"):
        load_array_dict(path)


def test_pointer_truncated_and_object_arrays(tmp_path: Path) -> None:
    pointer, truncated, objects = tmp_path / "pointer.npy", tmp_path / "truncated.npy", tmp_path / "objects.npy"
    pointer.write_bytes(POINTER)
    np.save(truncated, np.zeros((10, 4, 3)))
    truncated.write_bytes(truncated.read_bytes()[:-50])
    np.save(objects, np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"Git LFS pointer of 1\d\d bytes"):
        open_array(pointer)
    with pytest.raises(DataError, match=r"truncated array: .* holds 1038 of 1088 bytes for shape \(10, 4, 3\)"):
        open_array(truncated)
    with pytest.raises(DataError, match="Python objects"):
        open_array(objects)


@pytest.mark.parametrize("shape", [b"(True,)", b"(2361183241434822606848,)"])
def test_an_array_of_an_impossible_shape_is_refused(tmp_path: Path, shape: bytes) -> None:
    path = tmp_path / "array.npy"
    np.save(path, np.zeros(12))
    stored = path.read_bytes()
    path.write_bytes(stored.replace(b"(12,), }" + b" " * (len(shape) - len(b"(12,)")), shape + b", }"))
    assert shape in path.read_bytes() and path.stat().st_size == len(stored)
    with pytest.raises(DataError, match=r"array: .*array\.npy"):
        open_array(path)

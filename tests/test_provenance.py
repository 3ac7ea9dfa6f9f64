"""Provenance of generated files: manifests, metadata, the mark, and what `sedtalker verify` finds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from made_animation import made_animation
from PIL import Image

from sedtalker.animation import Animation
from sedtalker.cli.main import main
from sedtalker.errors import SEDTalkerError
from sedtalker.evaluation.picture_mark import ATTACKS, KINDS, attack, random_pictures
from sedtalker.export import export_animation
from sedtalker.provenance.manifest import CERTIFICATE, check_signer, read_manifest
from sedtalker.provenance.mark import HASH_BYTES, Mark, read_mark, read_marks
from sedtalker.provenance.record import MARK, NO_MARK, SOURCE_TYPE, SOURCE_TYPES, describe
from sedtalker.provenance.seal import read_seal
from sedtalker.provenance.verify import ALTERED, INTACT, NONE, verify_file
from sedtalker.recipes.self_made_certificate import make_chain
from sedtalker.render.animation_video import poster, render_animation
from sedtalker.render.config import RenderConfig
from sedtalker.resources import asset

SMALL = RenderConfig(256, 256)
WEIGHTS = {"talker": {"name": "default", "sha256": "ab" * 32}}


@pytest.fixture(scope="module")
def animation(tmp_path_factory: pytest.TempPathFactory) -> Animation:
    made = made_animation(tmp_path_factory.mktemp("sound"), 0.4)
    return replace(made, meta={**made.meta, "weights": WEIGHTS, "sedtalker": "0.1.0"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, animation: Animation) -> Path:
    """A folder with one file of each format that states its provenance."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("a.mp4", "a.webm", "a.gif"):
        render_animation(animation, folder / name, SMALL)
    poster(animation, 0.2, folder / "a.png", SMALL)
    for name in ("glb", "html"):
        export_animation(animation, name, folder / f"a.{name}")
    return folder


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.glb", "a.html"])
def test_every_format_states_its_origin_and_a_changed_byte_is_found(
    folder: Path, tmp_path: Path, name: str, animation: Animation
) -> None:
    found = verify_file(folder / name)
    assert found.status == INTACT, found.notes
    assert found.record is not None
    assert found.record["digital_source_type"] == SOURCE_TYPE and found.record["mark"] == MARK
    assert found.record["models"] == WEIGHTS
    assert found.record["audio_sha256"] == animation.meta["audio_sha256"]
    assert found.record["face"] == "synthetic face that belongs to nobody"
    if name not in ("a.glb", "a.html", "a.gif"):  # a palette of 256 colours may drop the mark
        assert found.mark == describe(animation.meta).digest[:HASH_BYTES].hex()
    changed = bytearray((folder / name).read_bytes())
    for place in (-100, len(changed) // 2):  # in the middle it makes a picture unreadable
        changed[place] ^= 1
        (tmp_path / name).write_bytes(changed)
        assert verify_file(tmp_path / name).status == ALTERED


def test_the_same_input_gives_the_same_bytes(folder: Path, tmp_path: Path, animation: Animation) -> None:
    for name in ("a.mp4", "b.mp4"):
        render_animation(animation, tmp_path / name, SMALL)
    poster(animation, 0.2, tmp_path / "a.png", SMALL)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes() == (folder / "a.mp4").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (folder / "a.png").read_bytes()


def test_without_the_mark_the_metadata_states_that(tmp_path: Path, animation: Animation) -> None:
    animation.save(tmp_path / "a.npz")
    render = ["render", str(tmp_path / "a.npz"), "-o", str(tmp_path), "--size", "128", "--to", "poster"]
    assert main([*render, "--no-mark"]) == 0
    found = verify_file(tmp_path / "a.poster.png")
    assert found.status == INTACT and found.mark is None
    assert found.record is not None and found.record["mark"] == NO_MARK
    assert "made without a mark, as stated" in found.notes


def test_mark_survives_compression_scaling_and_a_cut(tmp_path: Path, animation: Animation) -> None:
    render_animation(animation, tmp_path / "a.mp4", strip=False)
    for how in ATTACKS:
        attack(tmp_path / "a.mp4", tmp_path / "attacked.mp4", how)
        found = verify_file(tmp_path / "attacked.mp4")
        assert found.status == ALTERED and found.statement == "", how
        assert found.mark == describe(animation.meta).digest[:HASH_BYTES].hex()
        assert any("statement was removed" in note for note in found.notes)


def test_mark_changes_pictures_by_one_level(animation: Animation) -> None:
    picture = poster(animation, 0.2, config=SMALL)
    picture[:8] = 0
    picture[-8:] = 255
    marked = Mark(bytes(range(32))).add(picture)
    assert int(np.abs(marked.astype(int) - picture).max()) <= 2  # 2 at black and white, which have no room
    assert 10 * np.log10(255**2 / np.mean((marked.astype(float) - picture) ** 2)) >= 42
    assert read_mark(marked) == bytes(range(HASH_BYTES))
    transparent = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    with_alpha = Mark(bytes(32)).add(transparent)
    assert (with_alpha[..., 3] == 7).all() and read_mark(with_alpha) == bytes(HASH_BYTES)


def test_unmarked_pictures_have_no_mark() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (170, 200, 3), np.uint8)
    made = list(random_pictures(120, np.random.default_rng(1), [photograph]))
    assert {kind for kind, _ in made} == {*KINDS} and len({picture.tobytes() for _, picture in made}) == 120
    assert read_marks([picture for _, picture in made]) == [None] * 120


def test_marks_of_pictures_of_different_sizes_are_read_together() -> None:
    digests = [bytes([number] * HASH_BYTES) for number in range(3)]
    flat = [np.full((size, size + 9, 3), 120, np.uint8) for size in (150, 200, 260)]
    marked = [Mark(digest).add(frame) for digest, frame in zip(digests, flat, strict=True)]
    assert read_marks([*marked, flat[0]]) == [*digests, None]


def test_files_of_others_have_no_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.html").write_text('<meta charset="utf-8">')
    assert main(["verify", "--json", str(tmp_path / "a.png"), str(tmp_path / "a.html"), str(tmp_path / "b.png")]) == 1
    output = capsys.readouterr()
    assert [one["status"] for one in json.loads(output.out)] == [NONE, NONE]
    assert "no such file" in output.err


def test_verify_prints_findings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder / "a.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("a.png: intact")
    assert any("proves no identity" in line for line in lines)
    assert any("trainedAlgorithmicMedia" in line for line in lines)


def test_replaced_picture_in_a_marked_video_is_altered(folder: Path, tmp_path: Path, animation: Animation) -> None:
    """A statement with a mark of another record does not fit."""
    other = describe({**animation.meta, "audio_sha256": "0" * 64})
    picture = Mark(other.digest).add(poster(animation, 0.2, config=SMALL))
    Image.fromarray(picture).save(tmp_path / "a.png")
    from sedtalker.provenance import attach

    attach(tmp_path / "a.png", describe(animation.meta))
    found = verify_file(tmp_path / "a.png")
    assert found.status == ALTERED and any("another record" in note for note in found.notes)


def _write_pair(folder: Path, common_name: str) -> tuple[Path, Path]:
    """A certificate chain and its key."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio"), x509.NameAttribute(NameOID.COMMON_NAME, n)])
        for n in ("Studio authority", common_name)
    ]
    pem = b""
    for subject, owner, leaf in ((names[1], key, True), (names[0], authority, False)):
        usage = x509.KeyUsage(leaf, False, False, False, False, not leaf, not leaf, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(names[0])
            .public_key(owner.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime(2025, 1, 1))
            .not_valid_after(datetime.datetime(2100, 1, 1))
            .add_extension(x509.BasicConstraints(not leaf, None if leaf else 0), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(owner.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        )
        if leaf:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        pem += builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / "chain.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "chain.pem", folder / "key.pem"


def test_a_certificate_of_the_user_signs(tmp_path: Path, animation: Animation) -> None:
    chain, key = _write_pair(tmp_path, "Studio signer")
    animation.save(tmp_path / "a.npz")
    render = ["render", str(tmp_path / "a.npz"), "-o", str(tmp_path), "--size", "128", "--to", "poster"]
    assert main([*render, "--sign", str(chain), str(key)]) == 0
    manifest = read_manifest(tmp_path / "a.poster.png")
    assert manifest is not None and manifest.intact and manifest.signer == "Studio signer"
    assert manifest.source_type == SOURCE_TYPES + SOURCE_TYPE


@pytest.mark.parametrize("name", ["a.webm", "a.glb", "a.html"])
def test_a_certificate_of_the_user_signs_metadata(tmp_path: Path, animation: Animation, name: str) -> None:
    """Where no container exists for a manifest, it signs the statement, and the statement holds the file's hash."""
    meta = {**animation.meta, "model": "<it's & others>"}  # characters that HTML escapes
    provenance = describe({**meta, "weights": None}, face="default", sign=_write_pair(tmp_path, "Studio signer"))
    if name == "a.webm":
        render_animation(animation, tmp_path / name, SMALL, provenance=provenance)
    else:
        export_animation(animation, name[2:], tmp_path / name, provenance)
    found = verify_file(tmp_path / name)
    assert found.status == INTACT and found.statement == "signed metadata" and found.signer == "Studio signer"
    assert found.record == provenance.record
    data = (tmp_path / name).read_bytes()
    place = data.index(b'"seal":"')
    for at in (-100, place + 12):  # another content; and another checksum, as if the file were sealed again
        changed = bytearray(data)
        changed[at] = ord("0") if changed[at] != ord("0") else ord("1")
        (tmp_path / name).write_bytes(changed)
        assert verify_file(tmp_path / name).status == ALTERED
    sealed = read_seal(tmp_path / name)
    assert sealed is not None and sealed.manifest is not None


def test_export_signs_metadata_with_a_certificate_of_the_user(
    tmp_path: Path, animation: Animation, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(path) for path in _write_pair(tmp_path, "Studio signer")]
    animation.save(tmp_path / "a.npz")
    assert main(["export", str(tmp_path / "a.npz"), "--to", "html", "--sign", *pair]) == 0
    assert verify_file(tmp_path / "a.html").signer == "Studio signer"
    assert main(["export", str(tmp_path / "a.npz"), "--to", "csv", "--sign", *pair]) == 2
    assert "--sign does not work" in capsys.readouterr().err


def test_unusable_certificates_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain, key = _write_pair(tmp_path, "Studio signer")
    (tmp_path / "text.pem").write_text("no certificate")
    for pair, words in (
        ((tmp_path / "absent.pem", key), "no such file"),
        ((tmp_path / "text.pem", key), "not a PEM certificate"),
        ((chain, tmp_path / "text.pem"), "not a usable PEM key"),
        ((asset(*CERTIFICATE), key), "does not belong"),
    ):
        with pytest.raises(SEDTalkerError, match=words):
            check_signer(*pair)
    (tmp_path / "a.npz").write_bytes(b"")
    assert main(["render", str(tmp_path / "a.npz"), "--sign", str(tmp_path / "absent.pem"), str(key)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_packaged_certificate_is_the_one_of_the_recipe() -> None:
    assert asset(*CERTIFICATE).read_bytes() == make_chain()


def test_video_without_c2pa_states_the_record_in_its_metadata(folder: Path) -> None:
    with av.open(str(folder / "a.mp4")) as container:
        assert json.loads(container.metadata["description"])["digital_source_type"] == SOURCE_TYPE
        assert container.metadata["comment"] == "Made by SEDTalker"


def test_page_states_the_source_type_as_metadata(folder: Path) -> None:
    page = (folder / "a.html").read_text(encoding="utf-8")
    assert re.search(r"<meta name='digital-source-type' content='trainedAlgorithmicMedia'>", page)

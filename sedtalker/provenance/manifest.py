"""C2PA manifests (`c2pa-python`) in MP4, PNG and GIF files, and of the statements in other files.

The manifest's identifier comes from the record's sha256. Without a certificate of the user, a self-made one signs: its
key is the same in every installation, so the signature proves no identity, and its names say so. It shows that a file
was changed by somebody who did not sign it again. In MP4 and PNG files such a manifest gets deterministic salts
(`_fix_salts`), so that the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.errors import MissingExtraError, SEDTalkerError, SEDTalkerWarning, reason_of
from sedtalker.files import final_name
from sedtalker.provenance.mark import HASH_BYTES
from sedtalker.provenance.record import MARK, SOURCE_TYPE, SOURCE_TYPES, TOOL, Provenance
from sedtalker.resources import asset

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CERTIFICATE = ("provenance", "self_made.pem")
RECORD_LABEL = "org.sedtalker.record"
TEXT_FORMAT = "application/json"
_KEY_TEXT = b"SEDTalker self-made certificate: this key is public and proves no identity"
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {
        "verify_after_sign": False, "verify_trust": False, "remote_manifest_fetch": False, "ocsp_fetch": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read."""

    record: dict[str, Any] | None  # None if another program made the manifest
    intact: bool
    problems: tuple[str, ...]  # codes of the specification
    generator: str
    signer: str  # common name of the certificate
    source_type: str | None


def self_made_key() -> Ed25519PrivateKey:
    """The key of the self-made certificate."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_KEY_TEXT).digest())


def check_signer(certificate: Path, key: Path) -> None:
    """Check a certificate chain and its key (PEM) before the work.

    Raises:
        SEDTalkerError: a file is missing or cannot be used, or the key does not belong to the certificate.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    for path in (certificate, key):
        if not path.is_file():
            raise SEDTalkerError(f"no such file: {path}. Give --sign a certificate and its key, both PEM")
    try:
        public = x509.load_pem_x509_certificates(certificate.read_bytes())[0].public_key()
    except ValueError as error:
        raise SEDTalkerError(f"not a PEM certificate: {certificate}. Give the chain, the signer's first") from error
    try:
        private = load_pem_private_key(key.read_bytes(), None)
        _algorithm(private)
    except (ValueError, TypeError) as error:
        reason = reason_of(error)[:120]
        raise SEDTalkerError(
            f"not a usable PEM key: {key} ({reason}). Give an unencrypted Ed25519, P-256, P-384, P-521 or RSA key"
        ) from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != public.public_bytes(*form):
        raise SEDTalkerError(f"the key does not belong to the certificate: {key}, {certificate}. Give a pair")


def _algorithm(key: Any) -> str:
    """C2PA's name of the signature algorithm of a private key. Raises ValueError for other kinds of keys."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        names = {256: "es256", 384: "es384", 521: "es512"}
        if key.curve.key_size in names:
            return names[key.curve.key_size]
    raise ValueError(f"a key of type {type(key).__name__}")


def add_manifest(path: Path, provenance: Provenance) -> None:
    """Add a signed manifest to a file in its container.

    Raises:
        SEDTalkerError: the certificate or key cannot sign.
    """
    signed = path.with_name(f"{path.stem}.signed{path.suffix}")
    try:
        with _signing(path, provenance) as (builder, signer):
            if builder is None:
                return
            builder.sign_file(str(path), str(signed), signer)
        signed.replace(path)
    finally:
        signed.unlink(missing_ok=True)
    if provenance.sign is None:
        _fix_salts(path, provenance.digest)


def sign_text(text: bytes, provenance: Provenance, path: Path | None = None) -> bytes:
    """A signed manifest of a text, apart from it; empty if c2pa cannot be imported.

    Args:
        path: file that will hold the text, for errors; None: not known yet.

    Raises:
        SEDTalkerError: the certificate or key cannot sign.
    """
    with _signing(path, provenance) as (builder, signer):
        if builder is None:
            return b""
        builder.set_no_embed()
        manifest: bytes = builder.sign(signer, TEXT_FORMAT, io.BytesIO(text), io.BytesIO())
    return manifest


@contextmanager
def _signing(path: Path | None, provenance: Provenance) -> Iterator[tuple[Any, Any]]:
    """Builder and signer of a manifest; None and None, with a warning, if c2pa cannot be imported."""
    try:
        import c2pa
    except Exception as error:  # a platform without the library; the file keeps its metadata
        reason = reason_of(error)[:120]
        warnings.warn(
            f"no C2PA manifest in {_name(path)}: c2pa cannot be imported ({reason}). Reinstall c2pa-python",
            SEDTalkerWarning,
            stacklevel=4,
        )
        yield None, None
        return
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

    if provenance.sign is None:
        chain = asset(*CERTIFICATE).read_bytes()
        private: Any = self_made_key()
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    else:
        chain, key = (file.read_bytes() for file in provenance.sign)
        private = load_pem_private_key(key, None)
    try:
        info = c2pa.C2paSignerInfo(_algorithm(private).encode(), chain, key, None)
        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(_definition(provenance), context) as builder,
        ):
            yield builder, signer
    except c2pa.C2paError as error:
        reason = reason_of(error)[:200]
        raise SEDTalkerError(
            f"cannot sign {_name(path)}: {reason}. Give --sign a certificate that C2PA accepts"
        ) from error


def _name(path: Path | None) -> str:
    return "the file" if path is None else str(final_name(path))


def _definition(provenance: Provenance) -> dict[str, Any]:
    identifier = uuid.UUID(bytes=provenance.digest[:16], version=4)
    agent = {"name": TOOL, "version": provenance.record.get("version") or "unknown"}
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPES + SOURCE_TYPE, "softwareAgent": agent}
    assertions: list[dict[str, Any]] = [
        {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
        {"label": RECORD_LABEL, "kind": "Json", "data": provenance.record},
    ]
    if provenance.mark:
        mark = {"scope": {}, "value": provenance.digest[:HASH_BYTES].hex()}
        assertions.append({"label": "c2pa.soft-binding", "data": {"alg": MARK, "blocks": [mark]}})
    return {
        "label": f"urn:c2pa:{identifier}",
        "instance_id": f"xmp:iid:{identifier}",
        "claim_generator_info": [agent],
        "assertions": assertions,
    }


def read_manifest(path: Path) -> Manifest | None:
    """The active manifest of a file; None without one, or in a container that cannot hold one.

    Raises:
        MissingExtraError: c2pa cannot be imported.
    """
    return _read(str(path))


def read_text_manifest(manifest: bytes, text: bytes) -> Manifest | None:
    """The manifest of `sign_text`, compared with the text.

    Raises:
        MissingExtraError: c2pa cannot be imported.
    """
    return _read(TEXT_FORMAT, io.BytesIO(text), manifest)


def _read(*source: Any) -> Manifest | None:
    try:
        import c2pa
    except Exception as error:
        reason = reason_of(error)[:120]
        raise MissingExtraError(
            f"c2pa cannot be imported ({reason}). Install it with: pip install c2pa-python"
        ) from error
    try:
        with c2pa.Context.from_dict(_SETTINGS) as context, c2pa.Reader(*source, context=context) as reader:
            document = json.loads(reader.json())
            results = reader.get_validation_results() or {}
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return None
    except c2pa.C2paError as error:  # a manifest that cannot be parsed
        return Manifest(None, False, (reason_of(error)[:160],), "", "", None)
    active = document["manifests"][document["active_manifest"]]
    data = {assertion["label"]: assertion["data"] for assertion in active.get("assertions", [])}
    failures = [entry["code"] for entry in results.get("activeManifest", {}).get("failure", [])]
    problems = tuple(dict.fromkeys(code for code in failures if code != "signingCredential.untrusted"))
    actions = data.get("c2pa.actions.v2", {}).get("actions", [])
    generator = active.get("claim_generator_info", [{}])[0]
    return Manifest(
        record=data.get(RECORD_LABEL),
        intact=not problems and document.get("validation_state") != "Invalid",
        problems=problems,
        generator=f"{generator.get('name', '?')} {generator.get('version', '')}".strip(),
        signer=active.get("signature_info", {}).get("common_name", "?"),
        source_type=next((action["digitalSourceType"] for action in actions if "digitalSourceType" in action), None),
    )


_SALT_BOX = b"\0\0\0\x18c2sh"
_SALT = 16
_MANIFEST_REACH = 1 << 18  # bytes; both containers hold the manifest, of about 4 KB, at the start


def _fix_salts(path: Path, digest: bytes) -> None:
    """Replace the random salts of a self-made manifest by ones of the record's sha256, and sign it again.

    c2pa-python always draws random salts. Each is in an assertion's description box; the claim holds sha256 of the
    assertion's boxes, and COSE's signature covers the claim. The lengths stay the same. A file with another structure
    than expected is left as it is: its manifest is valid, only its bytes differ from run to run.
    """
    if path.suffix.lower() not in (".mp4", ".png"):  # GIF cuts the manifest into blocks of 255 bytes
        return
    with path.open("rb") as file:
        data = bytearray(file.read(_MANIFEST_REACH))
    store = data.find(b"c2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0")
    claim_label = data.find(b"c2pa.claim", max(store, 0))
    signature_label = data.find(b"c2pa.signature\0", max(claim_label, 0))
    if min(store, claim_label, signature_label) < 0:
        return
    claim = _box_content(data, b"cbor", claim_label)
    signature = _box_content(data, b"cbor", signature_label)
    if claim is None or signature is None:
        return
    old_claim = bytes(data[claim])
    position, number = store, 0
    while (position := data.find(_SALT_BOX, position, claim_label)) >= 0:
        start = data.rfind(b"jumb", store, data.rfind(b"jumd", store, position)) - 4  # the assertion's superbox
        end = start + int.from_bytes(data[start : start + 4], "big")
        before = hashlib.sha256(data[start + 8 : end]).digest()
        salt = position + len(_SALT_BOX)
        data[salt : salt + _SALT] = hashlib.sha256(digest + bytes([number])).digest()[:_SALT]
        at = data.find(before, claim.start, claim.stop)
        if at < 0:
            return
        data[at : at + 32] = hashlib.sha256(data[start + 8 : end]).digest()
        position, number = salt, number + 1
    if not _sign_again(data, claim, signature, old_claim):
        return
    if path.suffix.lower() == ".png":
        chunk = data.rfind(b"caBX", 0, store)
        size = int.from_bytes(data[chunk - 4 : chunk], "big")
        end = chunk + 4 + size
        data[end : end + 4] = zlib.crc32(data[chunk:end]).to_bytes(4, "big")
    with path.open("r+b") as file:
        file.write(data)


def _box_content(data: bytearray, kind: bytes, start: int) -> slice | None:
    """Content of the first box of this type after `start`."""
    at = data.find(kind, start, start + 200)
    return None if at < 0 else slice(at + 4, at - 4 + int.from_bytes(data[at - 4 : at], "big"))


def _sign_again(data: bytearray, claim: slice, signature: slice, old_claim: bytes) -> bool:
    """Replace the Ed25519 signature of COSE_Sign1 (RFC 9052) by that of the changed claim; False if it is not found."""
    from cryptography.exceptions import InvalidSignature

    key = self_made_key()
    cose = bytes(data[signature])
    for at in range(len(cose) - 66, 0, -1):
        if cose[at : at + 2] != b"\x58\x40":  # a byte string of 64
            continue
        protected = _byte_string(cose, 2 if cose[:1] == b"\xd2" else 1)
        try:
            key.public_key().verify(cose[at + 2 : at + 66], _to_sign(protected, old_claim))
        except InvalidSignature:
            continue
        first = signature.start + at + 2
        data[first : first + 64] = key.sign(_to_sign(protected, bytes(data[claim])))
        return True
    return False


def _byte_string(cbor: bytes, at: int) -> bytes:
    """The CBOR byte string at a position, with its header."""
    short = cbor[at] & 0x1F
    extra = {24: 1, 25: 2, 26: 4}.get(short, 0)
    length = int.from_bytes(cbor[at + 1 : at + 1 + extra], "big") if extra else short
    return cbor[at : at + 1 + extra + length]


def _to_sign(protected: bytes, payload: bytes) -> bytes:
    """CBOR of COSE's Sig_structure."""
    size = len(payload)
    header = b"\x58" + size.to_bytes(1, "big") if size < 256 else b"\x59" + size.to_bytes(2, "big")
    return b"\x84\x6aSignature1" + protected + b"\x40" + header + payload

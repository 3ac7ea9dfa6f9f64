"""Make the packaged certificate of self-made C2PA manifests: `python -m sedtalker.recipes self_made_certificate`.

C2PA does not accept a certificate that signs itself, so a self-made authority signs it. The names of both say that they
prove no identity. Keys and dates are fixed: the file is the same to the byte each time.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
from pathlib import Path

from sedtalker.files import atomic_write
from sedtalker.provenance.manifest import CERTIFICATE, self_made_key
from sedtalker.resources import asset

_START, _END = datetime.datetime(2026, 1, 1), datetime.datetime(2076, 1, 1)


def make_chain() -> bytes:
    """The certificate and that of its authority, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(title: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SEDTalker"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{title} (self-made, proves no identity)"),
            ]
        )

    def usage(sign: bool) -> x509.KeyUsage:
        return x509.KeyUsage(sign, False, False, False, False, not sign, not sign, False, False)

    authority = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"SEDTalker self-made authority").digest())
    key, issuer = self_made_key(), name("SEDTalker authority")
    base = x509.CertificateBuilder().issuer_name(issuer).not_valid_before(_START).not_valid_after(_END)
    root = (
        base.subject_name(issuer)
        .public_key(authority.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(usage(False), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False)
        .sign(authority, None)
    )
    leaf = (
        base.subject_name(name("SEDTalker"))
        .public_key(key.public_key())
        .serial_number(2)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(usage(True), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        .sign(authority, None)
    )
    return leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=asset(*CERTIFICATE), help="default: the packaged file")


def run(arguments: argparse.Namespace) -> None:
    with atomic_write(arguments.output) as temp_path:
        temp_path.write_bytes(make_chain())

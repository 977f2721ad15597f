"""Certificates and keys: for their owner alone, and good for what they are made for."""

from __future__ import annotations

import socket
import ssl
import stat
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedsparse.deploy.credentials import make
from fedsparse.errors import InputError


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    made = make(tmp_path / "credentials", 2)
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o700
    files = sorted(path.name for path in (tmp_path / "credentials").iterdir())
    assert files == ["ca.crt", "node-0", "node-0.pub", "node-1", "node-1.pub", "server.key", "server.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "credentials").iterdir()} == {0o600}
    assert [path.name for path in made.nodes] == ["node-0", "node-1"]


def test_each_client_has_its_own_key_pair(tmp_path: Path) -> None:
    made = make(tmp_path / "credentials", 2)
    pairs = []
    for path in made.nodes:
        private = load_ssh_private_key(path.read_bytes(), None)
        public = load_ssh_public_key(path.with_suffix(".pub").read_bytes())
        assert private.public_key() == public
        pairs.append(path.read_bytes())
    assert pairs[0] != pairs[1]


@pytest.mark.parametrize(
    ("host", "trusted"), [("localhost", True), ("fl.example.org", True), ("evil.example.org", False)]
)
def test_a_client_that_trusts_the_authority_meets_the_named_server_only(
    host: str, trusted: bool, tmp_path: Path
) -> None:
    made = make(tmp_path / "credentials", 0, ["fl.example.org"])
    assert handshake(made.certificate, made.key, made.ca, host) is trusted


def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    made, other = make(tmp_path / "a", 0), make(tmp_path / "b", 0)
    assert handshake(made.certificate, made.key, other.ca, "localhost") is False


def handshake(certificate: Path, key: Path, ca: Path, host: str) -> bool:
    """Whether a TLS client that looks for `host` accepts the server."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(ca))
    server.load_cert_chain(certificate, key)
    here, there = socket.socketpair()

    def answer() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        client.wrap_socket(here, server_hostname=host).close()
        return True
    except ssl.SSLError:
        return False
    finally:
        here.close()
        thread.join(10)


@pytest.mark.parametrize("host", ["", "a b", "http://lab", "lab:9092"])
def test_a_host_that_is_none_is_refused_and_nothing_is_written(host: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name or address of a host"):
        make(tmp_path / "credentials", 1, [host])
    assert not (tmp_path / "credentials").exists()


def test_without_cryptography_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(InputError, match=r"package cryptography, which is missing here"):
        make(tmp_path / "credentials", 1)
    assert not (tmp_path / "credentials").exists()

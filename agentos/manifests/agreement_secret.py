"""Rules within one Secret: where its value may be kept, and whom it may be sent to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from agentos.abi.canonical import Json
from agentos.manifests.fault import Path, Problem, shown
from agentos.manifests.places import guarded, odd_host, odd_path


def check_secret(body: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of a Secret that its schema accepts."""
    spec = body["spec"]
    if "file" in spec:
        yield from _file(spec["file"], ("spec", "file"))
    if "vault" in spec:
        yield from _vault(spec["vault"])
    for index, host in enumerate(spec.get("hosts", ())):
        if odd := odd_host(host):
            message = f"{shown(host)} can never be asked for: {odd}"
            yield Problem("secret.host", ("spec", "hosts", index), message, "for example api.github.com or *.github.com")


def _file(path: str, here: Path) -> Iterator[Problem]:
    if straight := odd_path(path):
        yield Problem("secret.path", here, f"{shown(path)} is not a straight path", f"write {straight}")
    elif shows := guarded(path):
        yield Problem(
            "secret.file", here, f"{shows} of the host is no place for credentials of tools", "give it a file of its own"
        )


def _vault(vault: Mapping[str, Json]) -> Iterator[Problem]:
    here: Path = ("spec", "vault")
    reason, loopback = _address(vault["address"])
    if reason:
        message = f"{shown(vault['address'])} is no address: {reason}"
        yield Problem("secret.vault", (*here, "address"), message, "for example https://vault.acme.example:8200")
    elif vault["address"].startswith("http:") and not loopback:
        message = "plain http would show the token and the secret to the network"
        yield Problem("secret.vault", (*here, "address"), message, "write https:, or an address of this machine")
    if "tokenEnv" in vault and "tokenFile" in vault:
        message = "Vault is asked with one token: from tokenEnv or from tokenFile"
        yield Problem("secret.vault", (*here, "tokenFile"), message, "remove one of the two", at="key")
    if {".", ".."} & set(vault["path"].split("/")):
        yield Problem("secret.vault", (*here, "path"), f"{shown(vault['path'])} leads elsewhere", "write it without . and ..")
    if "tokenFile" in vault:
        yield from _file(vault["tokenFile"], (*here, "tokenFile"))


def _address(url: str) -> tuple[str, bool]:
    """What is wrong with the address of a server ("" if nothing), and whether it is on this machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return str(error), False
    if port == 0 or not host:
        return "it needs a host, and a port that there is", False
    try:
        return "", ip_address(host).is_loopback
    except ValueError:
        return odd_host(host), host == "localhost"

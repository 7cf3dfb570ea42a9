"""Credentials between documents: one that goes into a header goes to hosts that its Secret names, by whoever can put it there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agentos.abi.canonical import Json
from agentos.manifests.document import Document
from agentos.manifests.fault import Path, Problem


def check_sending(documents: Sequence[Document]) -> Iterator[tuple[Document, Problem]]:
    """Problems of the credentials of Tools, as far as their Secrets and Sandboxes are among `documents`."""
    there = {(document.kind, document.tenant, document.name): document.spec for document in documents}
    for document in documents:
        given = document.spec.get("credentials") if document.kind == "Tool" else None
        for index, credential in enumerate(given if isinstance(given, list) else ()):
            if isinstance(credential, Mapping):
                secret = there.get(("Secret", document.tenant, str(credential.get("secret"))))
                place = there.get(("Sandbox", document.tenant, str(document.spec.get("sandbox"))))
                for problem in _credential(credential, document.spec, secret, place, ("spec", "credentials", index)):
                    yield document, problem


def _credential(
    credential: Mapping[str, Json],
    tool: Mapping[str, Json],
    secret: Mapping[str, Json] | None,
    place: Mapping[str, Json] | None,
    here: Path,
) -> Iterator[Problem]:
    if "header" in credential and secret is not None and not secret.get("hosts"):
        message = f"secret {credential['secret']} does not say to which hosts it may be sent in a header"
        yield Problem("tool.credential", (*here, "header"), message, "add `hosts:` to the Secret")
    if place is None or not _is_process(tool):
        return
    network = place.get("network")
    inspects = isinstance(network, Mapping) and network.get("inspect") is True
    if "header" in credential and not inspects:
        message = f"the proxy of sandbox {tool['sandbox']} does not inspect, so it can put no header into what is asked"
        yield Problem("tool.credential", (*here, "header"), message, "write `inspect: true` in its network, or use env or file")
    if "file" in credential and place.get("isolation") == "unsafe-none":
        message = f"sandbox {tool['sandbox']} is none, so nothing can be put at /run/secrets"
        yield Problem("tool.credential", (*here, "file"), message, "name another sandbox, or use env")


def _is_process(tool: Mapping[str, Json]) -> bool:
    driver = tool.get("driver")
    if not isinstance(driver, Mapping):
        return False
    mcp = driver.get("mcp")
    server = mcp.get("server") if isinstance(mcp, Mapping) else None
    return "exec" in driver or (isinstance(server, Mapping) and "command" in server)

"""`agentos policy pull` and `push`: the policy of a tenant as a bundle of OPA, and a bundle of OPA as Policy resources.

A pushed bundle goes through the same door as every declaration: a plan that is shown, lint, references, admission. Its data
is not pushed (facts come from declarations, settings from `spec.parameters`), nor are the runtime's own modules.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, ManifestError, NotFound, PolicyError, UsageError
from agentos.abi.ids import is_name
from agentos.cli.apply import DESTROY, DRY_RUN, FORM, REASON, WIDEN, YES, settle, unchanged
from agentos.cli.command import call, emit, say
from agentos.cli.plan import Form, ask_plan, show_plan
from agentos.cli.render.text import count
from agentos.cli.verb import examples
from agentos.policy.port import Module

if TYPE_CHECKING:
    from agentos.policy.adapters.bundle_file import BundleFile

TEST_SUFFIX: Final = "_test.rego"
TARGETS: Final = ("syscall", "admission", "approval")
_PACKAGE: Final = re.compile(r"^package\s+agentos\.(syscall|admission|approval)\b", re.MULTILINE)


def register(group: typer.Typer) -> None:
    """Add the verbs."""
    group.command(
        epilog=examples(
            "agentos policy pull",
            "agentos policy pull -o in-force.tar.gz && opa test -b in-force.tar.gz tests/",
            "agentos policy pull --revision 12 -o then.tar.gz",
        )
    )(pull)
    group.command(
        epilog=examples(
            "agentos policy push egress.tar.gz",
            "agentos policy push egress.tar.gz --mode dryrun --reason 'try it first'",
            "agentos policy push egress.tar.gz --verification-key compliance.pub --yes --allow-widen",
        )
    )(push)


def pull(
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="where to; else TENANT.tar.gz")] = None,
    revision: Annotated[
        int | None, typer.Option("--revision", metavar="N", help="of this revision; else what is in force")
    ] = None,
) -> int:
    """Write the policy of the tenant as a bundle that any OPA loads.

    All modules that decide, their facts, and a manifest with the revision and digest. The same policy gives the same bytes.
    """
    from agentos.policy.adapters.bundle_file import write_bundle

    facts = call("policy.facts", {} if revision is None else {"revision": revision})
    tenant = str(facts["data"]["agentos"]["tenant"]["name"])
    modules = tuple(Module(one["path"], one["source"]) for one in facts["modules"])
    about = {"agentos": {"tenant": tenant, "revision": facts["revision"], "digest": facts["digest"]}}
    name, content = write_bundle(modules, facts["data"], about)
    file = output or Path(f"{tenant}.tar.gz")
    _write(file, content)
    emit(f"sha256:{hashlib.sha256(content).hexdigest()}  {file}")
    say(f"{count(len(modules), 'module')} of tenant {tenant}, revision {facts['revision']}, digest {facts['digest']}")
    say(f"a policy server that loads it decides as bundle {name}")
    return 0


def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="a .tar.gz of Rego, as `opa build -b FOLDER` makes it")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="of the Policy; else the name of the file without its end")
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="MODE", help="enforce, warn or dryrun; else as it is, enforce for a new one")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--verification-key", metavar="FILE", help="refuse what this public key (PEM) did not sign")
    ] = None,
    scope: Annotated[str, typer.Option("--scope", metavar="TEXT", help="the scope that the signature must be for")] = "",
    yes: YES = False,
    allow_destroy: DESTROY = False,
    allow_widen: WIDEN = False,
    dry_run: DRY_RUN = False,
    reason: REASON = "",
    output: FORM = Form.TEXT,
) -> int:
    """Turn a bundle of Rego into Policy resources: show the plan, ask, and apply it.

    One Policy per target: NAME for rules about syscalls, NAME-admission and NAME-approval for the others. What exists keeps
    its mode, scope, parameters and labels. Lint and admission apply as to every declaration.
    """
    from agentos.policy.adapters.bundle_file import read_bundle, verify
    from agentos.registry.plan import Plan

    if mode not in {None, "enforce", "warn", "dryrun"}:
        raise UsageError(f"--mode {mode}: expected enforce, warn or dryrun")
    if scope and key is None:
        raise UsageError("--scope is about a signature", mend="add --verification-key FILE")
    read = read_bundle(_read(bundle), str(bundle))
    if key is not None:
        signer = verify(read, _read(key), scope=scope, where=str(bundle))
        say(f"signed{f' by {signer}' if signer else ''}: every file is as it was signed")
    pushed = sort_modules(read, name or _stem(bundle), str(bundle))
    for line in pushed.said:
        say(line)
    _lint(pushed)
    tenant = str(call("policy.status", {})["tenant"])
    manifests = [_manifest(tenant, *key, modules, mode, read) for key, modules in pushed.policies.items()]
    answer = ask_plan({"manifests": manifests})
    plan = Plan.from_dict(answer["plan"])
    show_plan(plan, answer, None, form=output)
    if not plan.changes:
        return unchanged(plan, output)
    params: dict[str, Json] = {"plan": plan.to_dict(), "reason": reason or f"pushed {bundle.name} ({read.sha256})"}
    allowed = {"allow_destroy": allow_destroy, "allow_widen": allow_widen}
    return settle("registry.apply", params, plan, answer, allowed, yes=yes, dry_run=dry_run, form=output)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a bundle comes to: modules by name of the Policy and target, and what is said about the rest."""

    policies: Mapping[tuple[str, str], tuple[Module, ...]] = field(hash=False)
    said: tuple[str, ...]


def sort_modules(bundle: BundleFile, name: str, where: str) -> Pushed:
    """Modules by the Policy that they go into. Raises PolicyError for what has no place in one, UsageError for the name.

    A bundle that `pull` wrote goes back to the policies that it came from: they are the first part of its paths.
    """
    from agentos.policy.bundle import axioms

    made_by_pull = _made_by_pull(bundle)
    own = {module.path: module.source for module in axioms()}
    policies: dict[tuple[str, str], list[Module]] = {}
    left_out = 0
    for module in bundle.modules:
        if own.get(module.path) == module.source:
            left_out += 1
            continue
        if made_by_pull and module.path in own:
            raise PolicyError(
                "this module is the runtime's own, and is not the one that this runtime has",
                where=f"{where}: {module.path}:1",
                mend="leave it out: the rules of a tenant stand beside the runtime's, and never replace them",
            )
        found = _PACKAGE.search(module.source)
        target = found[1] if found is not None else TARGETS[0]
        policy, path = (name if target == TARGETS[0] else f"{name}-{target}"), module.path
        if made_by_pull:
            policy, _, path = module.path.partition("/")
        if not is_name(policy):
            raise UsageError(
                f"{policy!r} is no name for a Policy", mend="give --name NAME: lower-case letters, digits and dashes"
            )
        policies.setdefault((policy, target), []).append(Module(path, module.source))
    if bundle.data and not made_by_pull:
        raise PolicyError(
            f"data has no place in a Policy: {', '.join(f'data.{key}' for key in sorted(bundle.data))}",
            where=where,
            mend="put settings into spec.parameters of the Policy, where rules read them; facts come from the declarations",
        )
    if not policies:
        raise PolicyError("the bundle holds no rules of its own", where=where)
    said = [f"{count(left_out, 'module')} of the runtime's own left out"] if left_out else []
    if bundle.data:
        said.append("its data left out: facts come from the declarations")
    return Pushed({key: tuple(modules) for key, modules in sorted(policies.items())}, tuple(said))


def _lint(pushed: Pushed) -> None:
    """The checks of `apply`, here, where a finding names the file inside of the bundle."""
    from agentos.policy.lint import lint

    found = [
        f"{policy}/{finding}" for (policy, target), modules in pushed.policies.items() for finding in lint(modules, target=target)
    ]
    if found:
        raise ManifestError(
            f"the bundle has {count(len(found), 'flaw')}; nothing was changed", faults=[{"text": text} for text in found]
        )


def _manifest(
    tenant: str, policy: str, target: str, modules: Sequence[Module], mode: str | None, bundle: BundleFile
) -> dict[str, Json]:
    """The Policy with these modules; the rest as it is declared now."""
    listed: list[Json] = [{"path": module.path, "source": module.source} for module in modules]
    origin: dict[str, Json] = {"agentos.bundle/sha256": bundle.sha256, "agentos.bundle/revision": bundle.revision}
    try:
        known = call("registry.get", {"kind": "Policy", "name": policy, "tenant": tenant})["resource"]
    except NotFound:
        return {
            "apiVersion": "agentos/v1",
            "kind": "Policy",
            "metadata": {"name": policy, "tenant": tenant, "annotations": origin},
            "spec": {"target": target, "mode": mode or "enforce", "modules": listed},
        }
    spec = {**known["spec"], "target": target, "mode": mode or known["spec"].get("mode", "enforce")}
    before = known["spec"].get("modules", [])
    if _made_by_pull(bundle):
        # A pulled bundle holds what decides, and so no tests: those that are declared stay.
        listed += [one for one in before if one["path"].endswith(TEST_SUFFIX)]
    if sorted(before, key=_path) == sorted(listed, key=_path):
        return {**known, "spec": spec}
    metadata = {**known["metadata"], "annotations": {**known["metadata"].get("annotations", {}), **origin}}
    return {**known, "metadata": metadata, "spec": {**spec, "modules": listed}}


def _path(module: Mapping[str, Json]) -> str:
    return str(module["path"])


def _made_by_pull(bundle: BundleFile) -> bool:
    return isinstance(bundle.manifest.get("metadata"), dict) and "agentos" in bundle.manifest["metadata"]


def _stem(file: Path) -> str:
    return re.sub(r"\.(tar\.gz|tgz|gz)$", "", file.name)


def _read(file: Path) -> bytes:
    from agentos.policy.adapters.bundle_file import MAX_PACKED

    try:
        with file.open("rb") as stream:
            return stream.read(MAX_PACKED + 1)
    except OSError as error:
        raise AgentOSError(f"cannot be read: {error.strerror}", where=str(file)) from error


def _write(file: Path, content: bytes) -> None:
    """Replace `file` in one step; it names agents and grants, so it is for its owner."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        fresh.touch(mode=0o600, exist_ok=False)
        fresh.write_bytes(content)
        fresh.replace(file)
    except OSError as error:
        raise AgentOSError(f"cannot be written: {error.strerror}", where=str(file)) from error

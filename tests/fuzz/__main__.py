"""Guided fuzzing: `make fuzz`, or `make fuzz FUZZ="frames.serve --cases 100000 --seed 7"`.

Where atheris (libFuzzer, with the branches of Python's bytecode as its coverage) has a wheel, it makes the cases, half of them by
our own mutations of lines and JSON. Elsewhere the same mutations make all of them, and the summary says that nothing guided them.
The targets of a family share a process that has the modules with coverage, and each runs in a copy of it. The same seed gives the
same cases on the same version of everything; what is found is printed with its bytes, and kept if `--keep` names a folder.

Exit codes: 0 all well, 1 something was found, 64 usage.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final, NoReturn

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE))

HUNG_S: Final = 60
"""Seconds after which a case that does not come back ends everything; libFuzzer prints its bytes."""

FAMILIES: Final = {
    "frames": (
        *(
            "agentos.kernel.serving",
            "agentos.kernel.runner",
            "agentos.kernel.turn",
            "agentos.kernel.line",
            "agentos.abi",
            "agentos.control",
        ),
        *("agentos.policy.adapters.server", "agentos.drivers.adapters.mcp_process", "agentos.drivers.adapters.mcp_sieve"),
        *("agentos.drivers.adapters.mcp_result", "fuzz_planted_deep"),
    ),
    "manifests": ("agentos.manifests", "agentos.abi"),
    "events": ("agentos.abi", "agentos.projections", "agentos.kernel.journal"),
    "archives": ("agentos.audit", "agentos.boot.backup_file", "agentos.boot.backup_manifest", "agentos.abi"),
}
"""What guides the cases of a family of targets: the modules that read what strangers wrote."""


def main() -> int:
    # What is refused is told to the log each time; nobody reads it here.
    logging.getLogger("agentos").setLevel(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="make fuzz", description="Guided fuzzing of frames, manifests, events and archives.")
    parser.add_argument(
        "targets", nargs="*", help="families, targets, or target+bug for a bug that is put in; none: all families"
    )
    parser.add_argument("--cases", type=int, help="how many of each; none: as many as in CI")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true", help="let no coverage guide it")
    parser.add_argument("--keep", type=Path, help="a folder for the bytes of what is found")
    parser.add_argument("--in-here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_here:
        return _family(given)
    began, found, cases = time.monotonic(), 0, 0
    for family in FAMILIES:
        names = [name for name in given.targets or FAMILIES if name.partition(".")[0] == family]
        if not names:
            continue
        options = ["--seed", str(given.seed)]
        options += ["--cases", str(given.cases)] if given.cases else []
        options += ["--keep", str(given.keep)] if given.keep else []
        options += ["--blind"] if given.blind else []
        # What a set holds comes in another order in each process, unless it is told not to.
        done = subprocess.run(
            [sys.executable, str(HERE), "--in-here", *options, "--", *names],
            env=os.environ | {"PYTHONHASHSEED": "0"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        print(done.stdout, end="", flush=True)
        summaries = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"target"')]
        cases += sum(one["cases"] for one in summaries)
        found += sum(one["found"] for one in summaries)
        if done.returncode != any(one["found"] for one in summaries):
            print("\n".join(done.stderr.splitlines()[-40:]), file=sys.stderr)
            found += 1
    print(f"{cases} cases in {time.monotonic() - began:.0f} s, {found} findings")
    return 1 if found else 0


def _family(given: argparse.Namespace) -> int:
    """Fuzz targets of one family, each in a copy of this process."""
    atheris_is_here = importlib.util.find_spec("atheris") is not None
    guided = atheris_is_here and not given.blind
    with contextlib.ExitStack() as stack:
        if guided:
            import atheris

            # Before anything of it is imported: coverage is in the bytecode. The wider it is, the longer the start.
            include = list(FAMILIES[given.targets[0].partition(".")[0]])
            stack.enter_context(atheris.instrument_imports(include=include))
        import fuzz_planted_deep  # noqa: F401 - with coverage as the rest
        from fuzz_targets import TARGETS
    failed = 0
    for name in given.targets:
        for target in [one for one in TARGETS if one == name.partition("+")[0] or one.partition(".")[0] == name]:
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                _one(target, name.partition("+")[2], given, guided)
            _, status = os.waitpid(child, 0)
            failed += status != 0
    return 1 if failed else 0


def _one(name: str, bug: str, given: argparse.Namespace, guided: bool) -> NoReturn:
    """Fuzz one target, print what came of it, and end this process."""
    from fuzz_case import Watch
    from fuzz_mutate import mutated
    from fuzz_planted import PLANTED
    from fuzz_targets import TARGETS

    target = PLANTED[bug](TARGETS[name]) if bug else TARGETS[name]
    watch, cases, seeds = Watch(target), given.cases or target.cases, target.seeds()
    began = time.monotonic()

    def run(data: bytes) -> None:
        finding = watch.run(bytes(data))
        if finding is None and watch.cases < cases:
            return
        summary = {"target": name, "cases": watch.cases, "guided": guided, "seconds": round(time.monotonic() - began, 1)}
        summary |= {"slowest_ms": round(watch.slowest * 1000), "growth_mib": watch.growth >> 20, "found": finding is not None}
        if finding is not None:
            print(str(finding).encode("ascii", "backslashreplace").decode("ascii"))
            if given.keep is not None:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{name}-{given.seed}").write_bytes(finding.data)
        print(json.dumps(summary | {"came": dict(watch.came.most_common())}), flush=True)
        os._exit(0 if finding is None else 1)

    for seed in seeds:
        run(seed)
    if guided:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            _guide(target.words, seeds, target.longest, given.seed, Path(folder), run)
    random = Random(given.seed)
    while True:
        run(mutated(random.choice(seeds), random, target.words, seeds, target.longest))


def _guide(
    words: Sequence[bytes], seeds: list[bytes], longest: int, seed: int, folder: Path, run: Callable[[bytes], None]
) -> None:
    """Hand over to libFuzzer; `run` ends the process."""
    import atheris
    from fuzz_mutate import mutated

    def change(data: bytes, most: int, number: int) -> bytes:
        random = Random(number)
        way = random.random()
        if way < 0.3:
            return bytes(atheris.Mutate(data, most))
        # From a seed now and then: what libFuzzer finds new is mostly another way to be wrong from the first byte on.
        return mutated(data if way < 0.7 else random.choice(seeds), random, words, seeds, most)

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, one in enumerate(seeds):
        (corpus / str(number)).write_bytes(one)
    spelled = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in spelled), "ascii")
    options = [f"-seed={seed}", f"-max_len={max(longest, *map(len, seeds), 1)}", f"-timeout={HUNG_S}", "-rss_limit_mb=4096"]
    files = [f"-artifact_prefix={folder}/", f"-dict={folder / 'words'}", str(corpus)]
    atheris.Setup([sys.argv[0], *options, *files], run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())

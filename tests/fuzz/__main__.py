"""The command `scripts/fuzz`."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import tempfile
from pathlib import Path
from random import Random

from . import harnesses, rest
from .harness import Finding, Harness, Report, fuzz

REST = "rest"

_CASES = 1_000_000
_EXAMPLES = 2_000  # of each operation, phase and caller of the REST API


def main() -> int:
    """Run harnesses, print what became of their cases, and return 1 where anything was wrong."""
    options = arguments()
    write_no_log()
    failed = False
    for name in options.harness or (*harnesses.BY_NAME, REST):
        if name == REST:
            with tempfile.TemporaryDirectory(dir=memory()) as folder:
                examples = min(options.cases, _EXAMPLES)
                held = rest.fuzz_rest(Path(folder), options.seed, examples, options.seconds)
            failed = failed or not held
            continue
        with tempfile.TemporaryDirectory(dir=memory()) as folder:
            harness = harnesses.BY_NAME[name](Path(folder))
            try:
                report = run(harness, options)
            finally:
                harness.close()
        tell(name, report)
        failed = failed or bool(report.findings)
    return int(failed)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    known = ", ".join((*harnesses.BY_NAME, REST))
    parser.add_argument("harness", nargs="*", help=f"which; by default all: {known}")
    parser.add_argument("--cases", type=int, default=_CASES, help="of each harness (%(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each, at most")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="by default another each time")
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="run one case again, alone")
    options = parser.parse_args()
    if unknown := set(options.harness) - {*harnesses.BY_NAME, REST}:
        parser.error(f"there is no harness {min(unknown)!r}; known: {known}")
    return options


def write_no_log() -> None:
    """Make log lines, which are part of the cost, and drop them."""
    logger = logging.getLogger("flask_m9m")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logging.getLogger("dotenv").setLevel(logging.ERROR)


def memory() -> str | None:
    """Return a folder in memory, if there is one."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() else None


def run(harness: Harness, options: argparse.Namespace) -> Report:
    if options.replay is None:
        return fuzz(harness, options.seed, options.cases, options.seconds)
    settle(harness, options.seed)
    case = harness.make(Random(f"{options.seed}:{options.replay}"))
    print(f"{harness.name}: {case!r}")
    return fuzz(harness, options.seed, 1, first=options.replay)


def settle(harness: Harness, seed: str) -> None:
    """Run a few cases before one that is replayed, so that all is loaded."""
    fuzz(harness, f"{seed} before", 100)


def tell(name: str, report: Report) -> None:
    rate = report.cases / report.seconds if report.seconds else 0
    medians = sorted(cost / 1_000 for cost in report.medians.values())
    span = f"{medians[0]:.0f} to {medians[-1]:.0f} µs" if medians else "none"
    print(
        f"{name}: {report.cases:,} cases in {report.seconds:.0f} s ({rate:,.0f} a second), "
        f"dearest {report.dearest:.1f} medians (of {span}), "
        f"{len(report.findings)} findings"
    )
    for outcome, count in report.outcomes.most_common():
        print(f"  {count:>9,}  {outcome}")
    for finding in report.findings:
        print(finding)
    sys.stdout.flush()


__all__ = ["Finding", "main"]

if __name__ == "__main__":
    sys.exit(main())

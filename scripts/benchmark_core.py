"""Compare the exact search with what others would use, on this machine, with answers checked.

Each peer runs in a process of its own with the environment that serves it best; peers take turns, so that noise
of the machine hits all alike. Prints a Markdown table on stdout and talks on stderr; ``--out`` adds a JSON file
with every single time, the machine, versions and the configurations that were chosen.

    python scripts/benchmark_core.py
    python scripts/benchmark_core.py --data anisotropic --peers deepssim faiss --isa avx2 avx512 --rounds 5
    python scripts/benchmark_core.py --data base.npy queries.npy --sweep --out peers.json

"GMAC/s" is queries x base rows x dim / seconds of the search / 10^9: work that a plain product would do, whatever
the peer did; a scan that skips elements can exceed the integer peak. "x FAISS" is FAISS's median time over the
peer's: over 1 is faster than FAISS.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.checks import count_wrong_scores, share_of_equal_ids
from benchmarks.data import Floats, make
from benchmarks.harness import Measured, Team
from benchmarks.machine import describe_machine
from benchmarks.peers import PEER_NAMES, package_versions

N_CHECKED = 200
SMALL_BASE = 2195  # a data set of one hospital
SWEPT_K = (1, 10, 100)
SWEPT_DIMS = (64, 128, 256, 512, 1024)
# Cases under this many multiply-adds take so little time that a median needs more rounds.
SMALL_MACS = 50e9
SMALL_ROUNDS = 5


@dataclass(frozen=True)
class Case:
    """One size to measure."""

    n_queries: int
    n_base: int
    dim: int
    k: int

    @property
    def macs(self) -> float:
        """Multiply-adds of the plain product."""
        return float(self.n_queries) * self.n_base * self.dim


def say(text: str) -> None:
    """Print one line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--queries", type=int, default=20000, help="queries (default: %(default)s)")
    parser.add_argument("--base", type=int, default=50000, help="base rows (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=256, help="elements of a row (default: %(default)s)")
    parser.add_argument("--k", type=int, default=10, help="places of an answer (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each peer (default: %(default)s)")
    parser.add_argument(
        "--data", nargs="+", default=["gaussian"], help="gaussian, anisotropic, or two .npy files: base and queries"
    )
    parser.add_argument(
        "--power", type=float, default=1.0, help="of anisotropic data: variances fall like 1/j^power (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the data (default: %(default)s)")
    parser.add_argument("--peers", nargs="+", choices=PEER_NAMES, default=list(PEER_NAMES), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each peer, 5 or more where the case is small")
    parser.add_argument(
        "--isa", nargs="+", default=[], metavar="LEVEL", help="levels of deepssim, each a peer (default: the best)"
    )
    parser.add_argument("--sweep", action="store_true", help="also other k and dims, and a base of one hospital")
    parser.add_argument("--out", type=Path, help="JSON file with every time, the machine and the configurations")
    return parser.parse_args(arguments)


def list_cases(options: argparse.Namespace) -> list[Case]:
    """Return the sizes to measure, each once; dims of files cannot be swept."""
    first = Case(options.queries, options.base, options.dim, options.k)
    if not options.sweep:
        return [first]
    dims = SWEPT_DIMS if len(options.data) == 1 else ()
    return list(
        dict.fromkeys(
            [
                first,
                *(Case(first.n_queries, first.n_base, first.dim, k) for k in SWEPT_K),
                *(Case(first.n_queries, first.n_base, dim, first.k) for dim in dims),
                Case(first.n_queries, SMALL_BASE, first.dim, first.k),
            ]
        )
    )


def list_peers(options: argparse.Namespace) -> list[str]:
    """Return names of peers, with this package once for each level asked for."""
    levels = [f"deepssim:{level}" for level in options.isa] or ["deepssim"]
    return [name for peer in options.peers for name in (levels if peer == "deepssim" else [peer])]


def first_of(measured: dict[str, Measured], prefix: str) -> Measured | None:
    """Return the first peer that ran and whose name starts so."""
    return next((found for name, found in measured.items() if name.startswith(prefix) and not found.reason), None)


def summarize(case: Case, name: str, measured: dict[str, Measured], base: Floats, queries: Floats) -> dict[str, Any]:
    """Return what a result says about one peer."""
    found = measured[name]
    if found.reason:
        return {"skipped": found.reason}
    assert found.answer is not None
    per_second = case.macs / found.median_search
    line: dict[str, Any] = {
        "prepare_seconds": found.prepare,
        "search_seconds": found.search,
        "median_prepare_seconds": found.median_prepare,
        "median_search_seconds": found.median_search,
        "median_total_seconds": found.median_total,
        "gmac_per_second": per_second / 1e9,
        "description": found.description,
        "statistics": found.statistics,
    }
    if (faiss := first_of(measured, "faiss")) is not None:
        line["times_faiss_search"] = faiss.median_search / found.median_search
        line["times_faiss_total"] = faiss.median_total / found.median_total
    ours = first_of(measured, "deepssim")
    if ours is not None and ours.answer is not None:
        line["share_of_equal_ids"] = share_of_equal_ids(found.answer[0], ours.answer[0])
    if name.startswith("deepssim"):
        line["n_checked"] = N_CHECKED
        line["n_wrong_scores"] = count_wrong_scores(found.answer, base, queries, N_CHECKED)
        if found.peaks:
            line["peaks"] = found.peaks
            line["share_of_integer_peak"] = per_second / found.peaks["integer"]
    return line


def run_case(team: Team, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one size and return what the JSON says about it."""
    base, queries = make(options.data, case.n_base, case.n_queries, case.dim, seed=options.seed, power=options.power)
    # Files have their own numbers of rows.
    case = Case(len(queries), len(base), base.shape[1], min(case.k, len(base)))
    say(f"case {case.n_queries} queries x {case.n_base} rows x {case.dim}, k = {case.k}")
    rounds = max(options.rounds, SMALL_ROUNDS) if case.macs < SMALL_MACS else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        measured = team.measure(base, queries, case.k, rounds, Path(folder))
    return {
        "case": asdict(case),
        "peers": {name: summarize(case, name, measured, base, queries) for name in measured},
    }


def format_row(name: str, peer: dict[str, Any], *, with_peak: bool) -> str:
    """Return a line of the table."""
    if "skipped" in peer:
        return f"| {name} | skipped: {peer['skipped'].splitlines()[0]} |" + " |" * (7 + with_peak)
    search = peer["search_seconds"]
    cells = [
        name,
        f"{peer['median_prepare_seconds'] * 1e3:.1f}",
        f"{peer['median_search_seconds'] * 1e3:.1f}",
        f"{min(search) * 1e3:.1f}-{max(search) * 1e3:.1f}",
        f"{peer['gmac_per_second']:.1f}",
        *(f"{peer[key]:.2f}" if key in peer else "" for key in ("times_faiss_search", "times_faiss_total")),
        f"{peer['share_of_equal_ids']:.2%}" if "share_of_equal_ids" in peer else "",
        f"{peer['n_checked'] - peer['n_wrong_scores']} of {peer['n_checked']}" if "n_checked" in peer else "",
    ]
    if with_peak:
        cells.append(f"{peer['share_of_integer_peak']:.0%}" if "share_of_integer_peak" in peer else "")
    return f"| {' | '.join(cells)} |"


def format_notes(peers: dict[str, Any]) -> Iterator[str]:
    """Give a line for each counter of this package and each chosen configuration."""
    for name, peer in peers.items():
        if peer.get("statistics"):
            yield f"- {name}: " + ", ".join(f"{key} {value}" for key, value in peer["statistics"].items())
        if "peaks" in peer:
            yield f"- {name}: peaks " + ", ".join(
                f"{kind} {peak / 1e9:.0f} GMAC/s" for kind, peak in peer["peaks"].items()
            )
        chosen = peer.get("description", {}).get("configuration")
        if chosen:
            description = peer["description"]
            how = "slices of the queries" if chosen["is_sliced"] else "whole queries"
            yield (
                f"- {name}: {how}, blocks {chosen['query_rows']} x {chosen['base_rows']}, level "
                f"{description['simd_level']}, OPENBLAS_CORETYPE {description['openblas_coretype']} "
                f"({description['openblas']})"
            )


def format_case(result: dict[str, Any]) -> str:
    """Return the Markdown of one size."""
    case, peers = result["case"], result["peers"]
    with_peak = any("peaks" in peer for peer in peers.values())
    headings = ["peer", "prepare, ms", "search, ms", "range, ms", "GMAC/s", "x FAISS, search", "x FAISS, both"]
    headings += ["ids equal to deepssim's", "scores exact"] + ["of integer peak"] * with_peak
    size = f"{case['n_queries']:,} queries, {case['n_base']:,} base rows, dim {case['dim']}, k {case['k']}"
    lines = [f"### {size}", "", f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    lines += [format_row(name, peer, with_peak=with_peak) for name, peer in peers.items()]
    lines += ["", *format_notes(peers)]
    return "\n".join([*lines, ""])


def format_machine(machine: dict[str, Any], options: argparse.Namespace) -> str:
    """Return the Markdown of what holds for all sizes."""
    power = f" (power {options.power})" if options.data == ["anisotropic"] else ""
    names = " and ".join(Path(part).name for part in options.data)
    return (
        f"{machine['processor']}, {machine['usable_cores']} of {machine['cores']} cores usable, "
        f"{options.threads} threads; {' '.join(machine['flags'])}. Data: {names}{power}, seed {options.seed}.\n"
    )


def write_json(options: argparse.Namespace, machine: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Write all that was measured so far."""
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    document = {"machine": machine, "versions": package_versions(), "options": settings, "results": results}
    options.out.write_text(json.dumps(document, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the status is 1 where a score of this package was not exact."""
    options = parse_arguments(arguments)
    machine = describe_machine()
    results = []
    print(format_machine(machine, options), flush=True)
    with Team(list_peers(options), options.threads, say) as team:
        for case in list_cases(options):
            results.append(run_case(team, case, options))
            print(format_case(results[-1]), flush=True)
            if options.out:  # after each case: a later failure must not lose what was measured
                write_json(options, machine, results)
    n_wrong = sum(peer.get("n_wrong_scores", 0) for result in results for peer in result["peers"].values())
    if n_wrong:
        say(f"{n_wrong} sampled scores of deepssim are not exact")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

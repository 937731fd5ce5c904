"""Which networks can be pruned structurally, by regrow and by torch-pruning, side by side.

    python benchmarks/coverage/run.py [--only 'timm/*'] [--tools regrow,torch_pruning]
    python benchmarks/coverage/table.py

Every classification, segmentation and video model of torchvision, a network of each family of timm,
and seven of transformers, with random weights, lose half of the channels wherever that is possible.
`case.py` states the criteria and `with_*.py` how each tool is set up. Every case runs in a process
of its own, forked from one that has imported the libraries, with limits on time and memory, so that
none stops the sweep. Results go to the record
as they come, and cases that are there are not run again; --again runs them anyway. --graphs takes
recorded cases only, and measures time and memory of graph and pruning anew, without the checks.

The environment (in one of its own, since torchvision's wheel fails beside a CPU build of PyTorch
without what `environment.py` does):

    pip install --constraint constraints.txt torch numpy safetensors typing-extensions
    pip install --no-deps torchvision==0.28.0 timm==1.0.31 torch-pruning==1.6.1 --editable .
    pip install transformers huggingface_hub pyyaml pillow
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import case as one_case
import environment
import models
import tools
from forked import forked

RECORD = Path(__file__).resolve().parents[1] / "records" / "coverage.json"
ORDER = (
    *("build", "graph", "prune", "original"),
    *("forward", "backward", "size", "reload", "mask", "done"),
)
MEASURED = (
    *("graph_seconds", "graph_times", "untried_seconds", "prune_seconds"),
    *("memory_growth", "run_growth"),
)
DIGITS = 4  # of numbers in the record
ALL = 20  # a case with its checks may take as many times the limit, by the clock


def attempt(
    tool: str, setting: str, name: str, seconds: float, memory: int, only: str | None = None
) -> dict[str, Any]:
    """One case; what a process that died or hung leaves is said in its place."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        log = Path(folder) / "log"
        arguments = ["--tool", tool, "--setting", setting, "--name", name]
        arguments += ["--seconds", str(seconds), "--memory", str(memory), "--result", str(result)]
        arguments += ["--only", only] if only else []
        died = {"setting": setting, "stage": "graph"}
        status = forked(one_case.main, arguments, log, ALL * seconds)
        if status is None:
            return {**died, "error": f"timeout: more than {seconds:g} s"}
        if result.exists():
            return dict(json.loads(result.read_text()))
        last = (log.read_text().strip().splitlines() or [""])[-1]
        return {**died, "error": f"the process died ({status}): {last}"}


def case(tool: str, name: str, seconds: float, memory: int) -> dict[str, Any]:
    """The best of a tool's settings for one network."""
    attempts: list[dict[str, Any]] = []
    for setting in tools.SETTINGS[tool]:
        only_mask_failed = any(a["stage"] == "mask" for a in attempts)
        if only_mask_failed and not setting.endswith("norms left") and attempts:
            continue
        new = attempt(tool, setting, name, seconds, memory)
        if new.get("error", "").startswith("SettingDoesNotDiffer"):
            continue
        attempts.append(new)
        if new["stage"] in ("build", "graph", "done"):
            break
    best = max(attempts, key=lambda a: ORDER.index(a["stage"]))
    first = attempts[0]
    measured = {k: first[k] for k in ("graph_seconds", "memory_growth") if k in first}
    tried = [
        {k: a[k] for k in ("setting", "stage", "error", "parameters_after") if k in a}
        for a in attempts
    ]
    entry = models.table()[name]
    return {
        "tool": tool,
        "name": name,
        "family": entry.family,
        "versions": environment.versions(tool),
        "success": best["stage"] == "done",
        "success_without_mask_check": best["stage"] in ("mask", "done"),
        **best,
        **measured,
        "attempts": tried,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="*", help="names of networks, as file patterns")
    parser.add_argument("--tools", default="regrow,torch_pruning")
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--again", action="store_true", help="run cases that are recorded too")
    parser.add_argument("--graphs", action="store_true", help="measure recorded cases anew")
    parser.add_argument("--seconds", type=float, default=300, help="limit of graph and pruning")
    parser.add_argument("--memory-gib", type=float, default=10, help="limit of a case")
    arguments = parser.parse_args()
    names = arguments.tools.split(",")
    if len(names) > 1:  # a process for each: what one tool sets at import is not for the other
        for tool in names:
            command = [sys.executable, *sys.argv, "--tools", tool]
            subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        return
    tool = names[0]
    environment.prepare()
    tools.imported(tool)
    cases = read(arguments.out)
    for name in models.matching(arguments.only):
        old = cases.get((tool, name))
        if arguments.graphs:
            if old and measured(old, arguments.seconds, int(arguments.memory_gib * 2**30)):
                write(arguments.out, cases)
            continue
        if old and old["versions"] == environment.versions(tool) and not arguments.again:
            continue
        start = time.perf_counter()
        new = case(tool, name, arguments.seconds, int(arguments.memory_gib * 2**30))
        cases[tool, name] = new
        write(arguments.out, cases)
        outcome = "ok" if new["success"] else f"{new['stage']}: {new.get('error', '')}"
        took = time.perf_counter() - start
        print(f"{tool:14} {name:45} {took:5.0f} s  {new['setting']}: {outcome}", flush=True)


def measured(old: dict[str, Any], seconds: float, memory: int) -> bool:
    """Time and memory of a recorded case's first setting, anew; whether its graph was found."""
    if "graph_seconds" not in old and old["stage"] == "graph":
        return False
    setting = tools.SETTINGS[old["tool"]][0]
    new = attempt(old["tool"], setting, old["name"], seconds, memory, "graph")
    print(f"{old['tool']:14} {old['name']:45} {new.get('graph_seconds')}", flush=True)
    if "graph_times" not in new:
        return False
    new |= attempt(old["tool"], setting, old["name"], seconds, memory, "run")
    old.update({k: new[k] for k in MEASURED if k in new}, anew=True)
    return True


def read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The cases of a record by tool and network."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    common = record.get("versions", {})
    cases = [{"versions": common.get(c["tool"]), **c} for c in record["cases"]]
    return {(c["tool"], c["name"]): c for c in cases}


def write(path: Path, cases: dict[tuple[str, str], dict[str, Any]]) -> None:
    """A line for each case; versions that most cases of a tool share stand at the top."""
    ordered = [cases[key] for key in sorted(cases, key=lambda key: key[::-1])]
    common = {}
    for tool in sorted({c["tool"] for c in ordered}):
        found = [c["versions"] for c in ordered if c["tool"] == tool]
        common[tool] = max(found, key=found.count)
    lines = [json.dumps(_short(c, common[c["tool"]])) for c in ordered]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    count = len(models.table())
    head = f'{{"networks": {count},\n"versions": {json.dumps(common)},\n"cases": [\n'
    partial.write_text(head + ",\n".join(lines) + "\n]}\n")
    partial.replace(path)


def _short(case: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
    """Without what the rest tells: traces, a single attempt, layers refused in a success."""
    found = {k: v for k, v in case.items() if k != "trace" and v is not None}
    if found["versions"] == versions:
        del found["versions"]
    if len(case.get("attempts", ())) == 1:
        del found["attempts"]
    if case["success"] and isinstance(case.get("refused"), dict):
        found["refused"] = len(case["refused"])
    for key, value in found.items():
        if isinstance(value, float):
            found[key] = float(f"{value:.{DIGITS}g}")
        elif key == "error":
            found[key] = " ".join(value.split())[:200]
    return found


if __name__ == "__main__":
    main()

"""One network pruned by one tool in one setting, in a process of its own.

    python case.py --tool TOOL --setting SETTING --name NAME --result FILE

`run.py` calls it, as a process forked from its own. Times are the processor's, on one thread. The
criteria, in their order, are the stages of a record: the first that fails ends the case. They are
the same for every tool:

    graph, prune  run
    original      not the tool's: the network itself runs, forward and backward
    forward       runs, and the outputs have the original's shapes
    backward      runs, and every parameter with a gradient in the original has a finite one
    size          parameters fell, and are what the tool says; layers' own attributes agree
    reload        a fresh process loads it and gets the same outputs
    mask          outputs equal the original's with zeros where the tool removed something
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import environment
import models
import torch
from forked import forked
from measure import Peak, TooLong, limit_memory, limit_time, outputs_and_macs
from network import Example, Model, call, to
from pruned import Pruned, Tool, mask, parameters, size_error
from torch import Tensor, nn

TOLERANCE = 1e-4  # largest difference, relative to the largest output
RELOAD_TOLERANCE = 1e-5
AGAIN_BELOW = 10  # seconds
DOUBLE_UP_TO = 150_000_000  # parameters; larger networks are compared in float32


class Failed(Exception):
    """A criterion is not met."""


class Case:
    """The stages of one case; `record` says how far it came."""

    def __init__(
        self, tool: str, setting: str, name: str, seconds: float, memory: int, only: str | None
    ) -> None:
        self.names = (tool, setting, name)
        self.seconds, self.memory, self.only = seconds, memory, only
        self.record: dict[str, Any] = {"setting": setting, "stage": "build"}

    def run(self) -> None:
        import tools

        tool = tools.tool(*self.names[:2])
        entry = models.find(self.names[2])
        example = entry.example()
        if self.only == "run":
            self._run_alone(tool, entry, example)
            return
        pruned, print_before = self._prune(tool, entry, example)
        if self.only == "graph":
            self._time_again(tool, entry, example, entry.make())
            return

        self.record["stage"] = "original"
        original = entry.make()
        if _fingerprint(original) != print_before:
            raise Failed("the network is built differently every time")
        wanted, self.record["macs_before"] = outputs_and_macs(original, example)
        if not all(bool(out.isfinite().all()) for out in wanted):
            raise Failed("the original's outputs are not finite")
        with_gradient = set(_gradients(original, example))

        self._time_again(tool, entry, example, original)

        self.record["stage"] = "forward"
        got, self.record["macs_after"] = outputs_and_macs(pruned.model, example)
        shapes = [[tuple(out.shape) for out in outs] for outs in (wanted, got)]
        if shapes[0] != shapes[1]:
            raise Failed(f"outputs are {shapes[1]}, not {shapes[0]}")

        self.record["stage"] = "backward"
        gradients = _gradients(pruned.model, example)
        for name in sorted(with_gradient):
            if name not in gradients or not gradients[name]:
                raise Failed(f"{name} has no finite gradient")

        self.record["stage"] = "size"
        self.record["parameters_after"] = parameters(pruned.model)
        error = size_error(pruned, self.record["parameters_before"])
        if error:
            raise Failed(error)

        self.record["stage"] = "reload"
        self._reload(tool, pruned, example, got)

        self.record["stage"] = "mask"
        self._compare(tool, original, pruned, example, wanted)
        self.record["stage"] = "done"

    def _prune(self, tool: Tool, entry: Model, example: Example) -> tuple[Pruned, float]:
        model = entry.make()
        print_before = _fingerprint(model)
        tool.warm_up()
        sizes = [p.numel() * p.element_size() for p in model.parameters()]
        self.record.update(parameters_before=parameters(model), parameter_bytes=sum(sizes))
        limit_memory(self.memory)
        peak = Peak()
        try:
            with peak, limit_time(self.seconds):
                self.record["stage"] = "graph"
                start = time.process_time()
                graph = tool.graph(model, example, entry)
                self.record["graph_seconds"] = time.process_time() - start
                self.record["stage"] = "prune"
                start = time.process_time()
                pruned = tool.prune(graph)
                self.record["prune_seconds"] = time.process_time() - start
        finally:
            self.record["memory_growth"] = peak.growth
        limit_memory(self.memory)
        self.record.update(groups=pruned.groups, units=pruned.units, refused=pruned.refused)
        return pruned, print_before

    @torch.no_grad()
    def _run_alone(self, tool: Tool, entry: Model, example: Example) -> None:
        """The memory of one run of the network itself, with which every tool begins."""
        model = entry.make()
        tool.warm_up()
        with Peak() as peak:
            call(model, example)
        self.record.update(stage="done", run_growth=peak.growth)

    def _time_again(self, tool: Tool, entry: Model, example: Example, model: nn.Module) -> None:
        """The least of three times for the graph, where that is soon done."""
        times = [self.record["graph_seconds"]]
        while times[0] < AGAIN_BELOW and len(times) < 3:
            start = time.process_time()
            tool.graph(model, example, entry)
            times.append(time.process_time() - start)
        self.record.update(graph_seconds=min(times), graph_times=len(times))
        if hasattr(tool, "untried"):
            times = []
            while not times or (times[0] < AGAIN_BELOW and len(times) < 3):
                start = time.process_time()
                tool.untried(model, example)
                times.append(time.process_time() - start)
            self.record["untried_seconds"] = min(times)

    def _reload(self, tool: Tool, pruned: Pruned, example: Example, got: list[Tensor]) -> None:
        for parameter in pruned.model.parameters():
            parameter.grad = None
        with tempfile.TemporaryDirectory() as folder:
            tool.save(pruned, folder)
            torch.save((example, got), Path(folder) / "expected.pt")
            import reload

            status = forked(reload.main, [*self.names, folder], Path(folder) / "log")
            told = (Path(folder) / "log").read_text().strip()
        if status:
            raise Failed((told or "the process died").splitlines()[-1])
        difference = float(told.split()[-1])
        if not difference <= RELOAD_TOLERANCE:
            raise Failed(f"reloaded outputs differ by {difference:.1e}")

    def _compare(
        self,
        tool: Tool,
        original: nn.Module,
        pruned: Pruned,
        example: Example,
        wanted: list[Tensor],
    ) -> None:
        own = call(tool.masked(original), example) if hasattr(tool, "masked") else None
        mask(original, pruned.kept)
        if own and difference(own, call(original, example)) > TOLERANCE:
            raise Failed("the tool's own masked network is another")
        dtype = torch.float64
        if self.record["parameters_before"] > DOUBLE_UP_TO:
            dtype = torch.float32
        try:
            masked, got = (_outputs(m, example, dtype) for m in (original, pruned.model))
        except RuntimeError:
            if dtype == torch.float32:
                raise
            masked, got = (_outputs(m, example, torch.float32) for m in (original, pruned.model))
        self.record["mask_effect"] = difference(masked, wanted)
        self.record["mask_difference"] = difference(got, masked)
        if not self.record["mask_difference"] <= TOLERANCE:
            raise Failed(f"differs from the masked network by {difference(got, masked):.1e}")


def difference(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, in parts of the largest wanted value of the same output."""
    parts = [
        float((a.double() - b.double()).abs().max() / b.double().abs().max())
        for a, b in zip(got, wanted, strict=True)
    ]
    return max(parts)


@torch.no_grad()
def _outputs(model: nn.Module, example: Example, dtype: torch.dtype) -> list[Tensor]:
    return call(model.to(dtype), to(example, dtype))


def _gradients(model: nn.Module, example: Example) -> dict[str, bool]:
    """Parameters with a gradient of the outputs' sum, and whether it is finite."""
    model.zero_grad(set_to_none=True)
    torch.stack([out.sum() for out in call(model, example)]).sum().backward()
    found = {
        name: bool(parameter.grad.isfinite().all())
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return found


def _fingerprint(model: nn.Module) -> float:
    return sum(float(p.detach().abs().sum(dtype=torch.float64)) for p in model.parameters())


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    for option in ("tool", "setting", "name", "result"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--memory", type=int, default=10 << 30)
    parser.add_argument(
        "--only", choices=("graph", "run"), help="time and memory; the memory of the network's run"
    )
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    environment.prepare()
    limits = (arguments.seconds, arguments.memory, arguments.only)
    case = Case(arguments.tool, arguments.setting, arguments.name, *limits)
    try:
        case.run()
    except TooLong as error:
        case.record["error"] = f"timeout: {error}"
    except Exception as error:
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        memory = isinstance(error, MemoryError) or "allocate memory" in str(error)
        limit = f"memory: more than {arguments.memory / 2**30:g} GiB"
        case.record["error"] = limit if memory else text.removeprefix("Failed: ")
        case.record["trace"] = traceback.format_exc()[-1500:]
    Path(arguments.result).write_text(json.dumps(case.record))


if __name__ == "__main__":
    main()

"""Operations without a rule bind what they touch."""

from __future__ import annotations

from regrow.model.coupling.tracer import Call, Tracer


def other(tracer: Tracer, call: Call) -> None:
    """Every dimension of every operand keeps its size, and the table says so."""
    bind(tracer, call, f"no rule for {call.name}")


def bind(tracer: Tracer, call: Call, why: str) -> None:
    """Fix all dimensions that an operation touches."""
    values = [tracer.value(each) for each in call.tensors]
    touched = False
    for value in values:
        for dim in value.dims:
            touched = touched or dim is not None
            tracer.indices.fix(dim, tracer.where(why))
    if touched:
        tracer.unknown.setdefault(call.name, set()).add(tracer.module)
    for out in call.outputs:
        tracer.give(out, [None] * out.dim(), like=values, zero=False)

"""Rules for the edges of a graph: which tensors operators read and write, and in which order.

An operator reads only what was there before it, and writes only what nobody else has: so there is
no cycle, and no tensor is both input and output of one operator.
"""

from __future__ import annotations

from loader_service.runtime.failures import InvalidModel
from loader_service.runtime.verifier.graph import Model, Operator, Subgraph
from loader_service.runtime.verifier.operands import ANY, OPERANDS, STATES, Operands

LEFT_OUT = -1


def check_edges(model: Model) -> None:
    """Check the edges of all subgraphs, and the signatures. Raises InvalidModel."""
    for graph in model.subgraphs:
        _check_subgraph(model, graph)
    for number, signature in enumerate(model.record["signature_defs"] or ()):
        index = signature["subgraph_index"]
        if index >= len(model.subgraphs):
            raise InvalidModel(f"signature {number}: there is no subgraph {index}")
        graph = model.subgraphs[index]
        for name, places in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            for entry in signature[name] or ():
                if entry["tensor_index"] not in places:
                    raise InvalidModel(
                        f"signature {number}: tensor {entry['tensor_index']} is not among the "
                        f"{name} of subgraph {index}"
                    )
    for number, entry in enumerate(model.record["metadata"] or ()):
        if entry["buffer"] >= len(model.buffers):
            raise InvalidModel(f"metadata {number}: there is no buffer {entry['buffer']}")


def _check_subgraph(model: Model, graph: Subgraph) -> None:
    count = len(graph.tensors)
    for name, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for index in indices:
            if not 0 <= index < count:
                raise InvalidModel(
                    f"subgraph {graph.index}: its {name} is tensor {index} of {count}"
                )
    readable = {
        tensor.index for tensor in graph.tensors if tensor.data is not None or tensor.is_variable
    }
    writable = set(range(count)) - readable
    for index in graph.inputs:
        if graph.tensors[index].data is not None:
            place = model.tensor_place(graph, index)
            raise InvalidModel(f"{place}: an input of the model cannot be a constant")
        tensor = graph.tensors[index]
        signature = model.structure.integers(tensor.record["shape_signature"], "shape_signature")
        for size, declared in zip(tensor.shape, signature, strict=False):
            # A caller would give it the declared size, which no rule has looked at.
            if declared not in (size, -1):
                place = model.tensor_place(graph, index)
                raise InvalidModel(f"{place}: has the size {size}, and declares {declared}")
    readable.update(graph.inputs)
    writable.difference_update(graph.inputs)
    for operator in graph.operators:
        operands = _operands(operator)
        _check_counts(operator, operands)
        for position, index in enumerate(operator.inputs):
            if index not in readable:
                _check_input(model, operator, position, index, operands)
        for index in operator.outputs:
            if index not in writable:
                _refuse_output(model, operator, index, count)
            writable.remove(index)
            readable.add(index)
        for index in operator.intermediates:
            if not LEFT_OUT <= index < count:
                raise InvalidModel(f"{operator.place}: its intermediate is tensor {index}")
        for position in STATES.get(operator.code, ()):  # type: ignore[call-overload]
            state = operator.inputs[position]
            if state == LEFT_OUT or not graph.tensors[state].is_variable:
                raise InvalidModel(
                    f"{operator.place}: input {position} is the state, which must be a variable"
                )
    for index in graph.outputs:
        tensor = graph.tensors[index]
        # A constant without elements has no bytes in its buffer.
        if index not in readable and not (tensor.buffer and 0 in tensor.shape):
            place = model.tensor_place(graph, index)
            raise InvalidModel(f"{place}: an output of the model that nothing produces")


def _operands(operator: Operator) -> Operands:
    return OPERANDS.get(operator.code, ANY)  # type: ignore[call-overload, no-any-return]


def _check_counts(operator: Operator, operands: Operands) -> None:
    inputs, outputs = len(operator.inputs), len(operator.outputs)
    if not operands.fewest <= inputs <= operands.most:
        raise InvalidModel(f"{operator.place}: takes {inputs} inputs")
    if not operands.outputs_fewest <= outputs <= operands.outputs_most:
        raise InvalidModel(f"{operator.place}: gives {outputs} outputs")


def _check_input(
    model: Model, operator: Operator, position: int, index: int, operands: Operands
) -> None:
    """Say why this input cannot be read; an optional one may be left out."""
    graph = operator.graph
    if index == LEFT_OUT:
        if position in operands.optional or operands is ANY:
            return
        raise InvalidModel(f"{operator.place}: input {position} cannot be left out (index -1)")
    if not 0 <= index < len(graph.tensors):
        raise InvalidModel(
            f"{operator.place}: input {position} is tensor {index} of {len(graph.tensors)}"
        )
    tensor = graph.tensors[index]
    # A constant without elements has no bytes in its buffer.
    if tensor.buffer and 0 in tensor.shape:
        return
    place = model.tensor_place(graph, index)
    rule = "is its output too" if index in operator.outputs else "was not produced before it"
    raise InvalidModel(f"{operator.place}: input {position}, {place}, {rule}")


def _refuse_output(model: Model, operator: Operator, index: int, count: int) -> None:
    if not 0 <= index < count:
        raise InvalidModel(f"{operator.place}: its output is tensor {index} of {count}")
    graph = operator.graph
    tensor = graph.tensors[index]
    if tensor.data is not None:
        rule = "is a constant"
    elif tensor.is_variable:
        rule = "is a variable"
    elif index in graph.inputs:
        rule = "is an input of the subgraph"
    elif index in operator.inputs:
        rule = "is its input too"
    else:
        rule = "has been written already"
    raise InvalidModel(f"{operator.place}: its output, {model.tensor_place(graph, index)}, {rule}")

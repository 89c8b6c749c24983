"""The modules of a model and the tensors that they hold, whatever the model overrides.

``named_modules``, ``parameters`` and their kin are methods. Models override them, for example to
give only what is to be trained, and sets of modules call an ``__eq__`` of the user's. The functions
here read the dictionaries of `torch.nn.Module` itself.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each module once, by its path, parents first; "" is the model."""
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:  # no recursion: models may nest deeper than Python calls
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        prefix = f"{path}." if path else ""
        inside = [
            (f"{prefix}{name}", part) for name, part in module._modules.items() if part is not None
        ]
        waiting += reversed(inside)


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a module holds itself, by name."""
    return {name: held for name, held in module._parameters.items() if held is not None}


def own_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers that a module holds itself."""
    return [held for held in module._buffers.values() if held is not None]


def parameters_in(model: nn.Module) -> list[nn.Parameter]:
    """Each parameter of a model once."""
    held = (own_parameters(module).values() for _, module in named_modules(model))
    return list({id(each): each for some in held for each in some}.values())


def tensors_in(model: nn.Module) -> list[Tensor]:
    """Each parameter of a model once, and its buffers."""
    buffers = [held for _, module in named_modules(model) for held in own_buffers(module)]
    return [*parameters_in(model), *buffers]


class Held(NamedTuple):
    """A module, and the parameters that it holds itself, by name."""

    module: nn.Module
    parameters: dict[str, nn.Parameter]


def holdings(model: nn.Module) -> dict[str, Held]:
    """What each module of a model holds at this moment, by its path."""
    return {path: Held(module, own_parameters(module)) for path, module in named_modules(model)}


def changed_parts(before: Mapping[str, Held], after: Mapping[str, Held]) -> list[str]:
    """The modules and parameters that were added, deleted or replaced: "aux is deleted"."""
    was, now = _by_path(before), _by_path(after)

    def same(path: str) -> bool:
        return was.get(path) is now.get(path)

    return [
        f"{path} is {'added' if path not in was else 'replaced' if path in now else 'deleted'}"
        for path in dict.fromkeys((*was, *now))
        if not same(path) and same(path.rpartition(".")[0])  # not what a changed module holds
    ]


def _by_path(held: Mapping[str, Held]) -> dict[str, nn.Module | nn.Parameter]:
    parts: dict[str, nn.Module | nn.Parameter] = {}
    for path, (module, parameters) in held.items():
        parts[path] = module
        prefix = f"{path}." if path else ""
        parts |= {f"{prefix}{name}": each for name, each in parameters.items()}
    return parts

"""A model as the command line names it: load it, make its inputs, audit it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from dscalc.errors import DscalcError
from dscalc.pytorch.audit import audit
from dscalc.pytorch.inputs import Inputs, check_inputs, inputs_from, read_inputs
from dscalc.pytorch.load import load_model, torch_defaults, user_code
from dscalc.report.report import Report


class Target:
    """A model by its name, loaded at the first audit.

    Args:
        name: ``MODULE:ATTR``.
        words: a shape of each input, as in ``--input``.
        made_by: ``MODULE:ATTR`` of the inputs instead; "" for none.
        batch: samples of inputs given as shapes.
        arguments: keywords for a callable that makes the model.
        dtype: of inputs that name none, and of the model if it is a dtype of floats.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str] = (),
        made_by: str = "",
        *,
        batch: int = 1,
        arguments: dict[str, Any] | None = None,
        dtype: str | None = None,
    ) -> None:
        self._load = partial(load_model, name, arguments or {}, dtype)
        self._read = partial(read_inputs, words, batch, dtype)
        self._name, self._made_by = name, made_by
        self._model: nn.Module | None = None

    def audit(self, **options: Any) -> Report:
        """Audit the model; ``options`` are those of `dscalc.pytorch.audit`.

        Raises:
            DscalcError: the model cannot be loaded or audited, or its inputs cannot be made.
        """
        with torch_defaults():
            if self._model is None:
                self._inputs = inputs_from(self._made_by) if self._made_by else self._read()
                self._model = self._load()
                self._default = torch.get_default_dtype()  # the model may have set it
                check_inputs(self._model, self._inputs)
            return self._audit(self._inputs, **options)

    def at_size(self, size: int, **options: Any) -> Report:
        """Audit the model on square images of another size; `audit` comes first.

        Raises:
            DscalcError: the model has this size already, does not run at it, or does not take one
                batch of images.
        """
        [image, *others] = [*self._inputs.args] or [None]
        if others or not isinstance(image, torch.Tensor) or image.dim() != 4:
            raise DscalcError("it does not take one batch of images")
        samples, channels, *own = image.shape
        if own == [size, size]:
            raise DscalcError("that is its own size")
        other = torch.empty(samples, channels, size, size, device="meta", dtype=image.dtype)
        with torch_defaults():
            torch.set_default_dtype(self._default)
            return self._audit(Inputs((other,), self._inputs.kwargs), **options)

    def _audit(self, inputs: Inputs, **options: Any) -> Report:
        assert self._model is not None
        rebuild = partial(self._load, meta=False)
        with user_code(self._name):  # the model may print
            report = audit(
                self._model, *inputs.args, named=inputs.kwargs, rebuild=rebuild, **options
            )
        given = f", inputs of {self._made_by}" if self._made_by else report.at
        return replace(report, title=self._name, at=given)

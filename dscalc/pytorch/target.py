"""A model as the command line names it: load it, make its inputs, audit it."""

import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dscalc.errors import CrosscheckError, DscalcError
from dscalc.inputs.model_file import program_file
from dscalc.parse import with_x
from dscalc.pytorch.audit import audit
from dscalc.pytorch.exported import load_program
from dscalc.pytorch.inputs import Inputs, check_inputs, inputs_from, inputs_in_words, read_inputs
from dscalc.pytorch.load import load_model, torch_defaults, user_code
from dscalc.pytorch.user_errors import error_in_words
from dscalc.report.report import Report


class Target:
    """A model by its name, loaded at the first audit.

    Args:
        name: ``MODULE:ATTR``.
        words: each ``--input``.
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
        self._name, self._words, self._made_by, self._batch = name, words, made_by, batch
        self._arguments, self._dtype = arguments or {}, dtype
        self._model: nn.Module | None = None
        self._with_values = cache(partial(self._load, meta=False))  # others would draw others
        self._notes: list[str] = []

    def audit(self, **options: Any) -> Report:
        """Audit the model; ``options`` are those of `dscalc.pytorch.audit`.

        Raises:
            DscalcError: the model cannot be loaded or audited, or its inputs cannot be made.
        """
        with torch_defaults():
            if self._model is None:
                self._model, self._inputs = self._begin(options)
                self._default = torch.get_default_dtype()  # the model may have set it
            try:
                return self._audit(self._inputs, **options)
            except CrosscheckError:
                raise
            except DscalcError as error:
                if "on these inputs" in str(error) and (fix := self._shapes_that_run()):
                    reason = str(error).partition("; forward takes")[0]
                    raise DscalcError(f"{reason}; {fix}") from error
                raise

    def _shapes_that_run(self) -> str:
        """The shapes that were probably meant, as the model runs on them; "" if it does not."""
        values = [word for word in self._words if ":=" in word]
        shapes = [with_x(word) for word in self._words if ":=" not in word]
        words = [re.fullmatch(r"(.*=|)([0-9x]+)(:.*|)", shape) for shape in shapes]
        parts = [word.groups() for word in words if word]
        sizes = [middle.split("x") for _, middle, _ in parts]
        firsts = {first for first, *rest in sizes if rest}
        if len(parts) < len(words) or len(firsts) != 1:
            return ""
        samples = int(firsts.pop()) if self._batch == 1 else 1
        last_first = [[each[-1], *each[:-1]] if len(each) == 3 else each for each in sizes]
        for why, batch, others in (
            ("--input has no batch axis", samples, [each[1:] for each in sizes]),
            ("channels come first", self._batch, last_first),
        ):
            shapes = ["x".join(each) for each in others]
            meant = [f"{a}{shape}{z}" for (a, _, z), shape in zip(parts, shapes, strict=True)]
            meant += values
            with suppress(DscalcError), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                self._audit(read_inputs(meant, batch, self._dtype), verify=False)
                more = f" --batch {batch}" if batch > 1 else ""
                return f"{why}: give --input {' --input '.join(meant)}{more}"
        return ""

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

    def _begin(self, options: dict[str, Any]) -> tuple[nn.Module, Inputs]:
        """Load the model, and make its inputs."""
        inputs = self._given()
        model = self._load(meta=not options.get("nonzero"))
        check_inputs(model, inputs)
        return model, inputs

    def _given(self) -> Inputs:
        if self._made_by:
            return inputs_from(self._made_by)
        return read_inputs(self._words, self._batch, self._dtype)

    def _load(self, *, meta: bool = True) -> nn.Module:
        return load_model(self._name, self._arguments, self._dtype, meta=meta)

    def _audit(self, inputs: Inputs, **options: Any) -> Report:
        assert self._model is not None
        rebuild = self._with_values
        with user_code(self._name):  # the model may print
            report = audit(
                self._model, *inputs.args, named=inputs.kwargs, rebuild=rebuild, **options
            )
        given = f", inputs of {self._made_by}" if self._made_by else report.at
        notes = [*self._notes, *report.notes]
        return replace(report, title=self._name, at=given, notes=notes)


class ProgramTarget(Target):
    """An exported program, which brings inputs of its own."""

    def _begin(self, options: dict[str, Any]) -> tuple[nn.Module, Inputs]:
        name = self._name
        if options.get("block"):
            raise DscalcError(
                f"{name} is an exported program, which cannot be rewritten; for --as give its "
                "source, such as mymodels.py:Net"
            )
        if self._arguments or self._dtype:
            option = "--kwargs" if self._arguments else "--dtype"
            raise DscalcError(f"{name} is an exported program and takes no {option}")
        program = load_program(Path(name))
        self._notes, self._own = program.notes, program.inputs
        if self._words or self._made_by:
            given, own = self._given(), self._own
            if own and (len(own.args), {*own.kwargs}) != (len(given.args), {*given.kwargs}):
                raise DscalcError(f"{name} takes {_words_of(own)}, got {_words_of(given)}")
            return program.model, given
        if program.inputs is None:
            raise DscalcError(f"{name} brings no inputs of its own; give --input")
        if self._batch != 1:
            raise DscalcError(f"--batch needs --input: {name} brings {_words_of(program.inputs)}")
        return program.model, program.inputs

    def _audit(self, inputs: Inputs, **options: Any) -> Report:
        try:
            return super()._audit(inputs, **options)
        except DscalcError as error:
            if not error.__cause__ or inputs is self._own or not self._own:
                raise
            why = error_in_words(error.__cause__).partition(". ")[0]
            raise DscalcError(
                f"{self._name} was exported with {_words_of(self._own)} and does not run with "
                f"{_words_of(inputs)} ({why}); drop --input, or export it with dynamic_shapes"
            ) from error.__cause__


def _words_of(inputs: Inputs) -> str:
    return inputs_in_words(inputs.args, inputs.kwargs) or "no inputs"


def target_of(name: str, *args: Any, **options: Any) -> Target:
    """The target of that name, which is code or the file of an exported program.

    Raises:
        DscalcError: it is a file of another kind.
    """
    path = program_file(name)
    return ProgramTarget(str(path), *args, **options) if path else Target(name, *args, **options)

"""The options of a command line, read before any work."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import typer

from dscalc import parse, slices
from dscalc.checks.assertion import Assertion, Numbers
from dscalc.checks.verdict import Verdict
from dscalc.commands.options import OutputOptions, ProofOptions
from dscalc.commands.question import Question, the_one
from dscalc.core.blocks import Block
from dscalc.core.fields import Field, Vocabulary, find
from dscalc.errors import DscalcError
from dscalc.report.file import kind_of_picture
from dscalc.report.report import Report

if TYPE_CHECKING:  # few runs need them
    from dscalc.checks.selection import Selection


class Asked:
    """The options of a command line, read before any work.

    Attributes:
        command: its name.
        block: what rows are rewritten as; None where nothing is.
        output: how the answer is shown and checked.
        batch_size: samples.
        other: makes the same report of another network, by its name or file; None if there is none.
        at_size: makes the same report at another input size; None if there is none.
        verdict: the outcome of each check.
    """

    def __init__(
        self,
        ctx: typer.Context,
        vocabulary: Vocabulary,
        block: Block | None,
        output: OutputOptions,
        proof: ProofOptions | None = None,
        questions: Iterable[Question] = (),
        *,
        several: bool = False,
        batch_size: int = 1,
        other: Callable[[str], Report] | None = None,
        at_size: Callable[[int], Report] | None = None,
    ) -> None:
        """Find the fields that options name, and begin the question of a slice, if there is one.

        Raises:
            DscalcError: options contradict each other, or name unknown fields or rows.
        """
        self.ctx, self.command, self.block = ctx, ctx.info_name or "", block
        self.output, self.several, self.batch_size = output, several, batch_size
        self.other, self.at_size = other, at_size
        self.question = the_one([each for each in questions if each.asked])
        self.question.begin(self)
        if output.plot:
            kind_of_picture(output.plot)
            if output.file and output.file.resolve() == output.plot.resolve():
                raise DscalcError(f"--plot and --output both name {output.plot}; name two files")
        if output.get_rows and not output.get:
            raise DscalcError("--rows needs --get FIELD")
        plain = partial(find, vocabulary=vocabulary, block=block, unit=output.unit)
        known = partial(self.question.find, find=plain)
        self.get = [(plain if self.gets_rows else known)(name) for name in output.get]
        numbers: Numbers = {**slices.numbers(), **self.question.numbers}
        assertions = [Assertion.parse(text, known, numbers) for text in output.assertions]
        for condition in output.assertions_each:
            each = Assertion.parse(condition, plain, numbers, what="--assert-each")
            assertions.append(each.of_a_row("--assert-each")._replace(each=True))
        self.selection = _selection(output, plain, numbers)
        writes = self.ctx.obj.write if self.ctx.obj else sys.stderr.write
        self.verdict = Verdict(assertions, numbers, write=writes, quiet=output.quiet)
        self._proof = proof

    @property
    def fields(self) -> list[Field]:
        """What is read of rows besides what is shown."""
        return [*self.shown, *self.get]

    @property
    def shown(self) -> list[Field]:
        """The fields that options name, which a table shows."""
        asserted = [assertion.field for assertion in self.verdict.assertions]
        return [*asserted, *(self.selection.fields if self.selection else ())]

    @property
    def gets_rows(self) -> bool:
        """Whether --get reads rows even where there is a total."""
        output = self.output
        return output.get_rows or (bool(output.get) and output.selects)

    @property
    def streamed(self) -> bool:
        """Whether each row is written as soon as it is made; a plot needs all rows."""
        output = self.output
        return not output.plot and (output.format in ("csv", "jsonl") or bool(output.get))

    def proves(self, *, by_default: bool) -> bool:
        """Whether to cross-check; by default --get does so only if a field needs it."""
        if self._proof is None:
            return False
        by_default = by_default and self.question.proves and not self.get
        return self._proof.wanted(by_default, self.fields)

    def refuse_several(self, option: str) -> None:
        """Refuse an option that takes one layer, network or model, if there are several.

        Raises:
            DscalcError: there are several.
        """
        if self.several and self.command == "compare":
            raise DscalcError(f"{option} takes one layer; give one value for each of IC, OC, F, D")
        if self.several:
            raise DscalcError(f"{option} takes one network or model; give only one")

    def refuse_other_answers(self, option: str) -> None:
        """Refuse options that contradict an option with an answer of its own.

        Raises:
            DscalcError: such an option is given, or there are several layers, networks or models.
        """
        self.refuse_several(option)
        output = self.output
        given = {
            "--get": output.get,
            "--assert": output.assertions,
            "--assert-each": output.assertions_each,
            "--where": output.where,
            "--sort": output.sort,
            "--top": output.top,
            "--plot": output.plot,
        }
        if others := [name for name, value in given.items() if value]:
            raise DscalcError(f"{option} prints its own answer; drop {' and '.join(others)}")


def _selection(
    output: OutputOptions, known: Callable[[str], Field], numbers: Numbers
) -> "Selection | None":
    if output.reverse and output.sort is None:
        raise DscalcError("--reverse needs --sort FIELD")
    if not output.selects:
        return None
    from dscalc.checks.selection import Selection

    where = [Assertion.parse(text, known, numbers, what="--where") for text in output.where]
    return Selection(
        [condition.of_a_row("--where") for condition in where],
        known(output.sort) if output.sort is not None else None,
        reverse=output.reverse,
        top=parse.whole(output.top, "--top", such_as=10) if output.top is not None else None,
    )

"""One sentence for a paper."""

from dataclasses import dataclass

from dscalc._version import __version__
from dscalc.errors import DscalcError
from dscalc.report.report import Report


@dataclass(eq=False, repr=False)
class Citation(Report):
    """A sentence in place of a report."""

    @property
    def exit_code(self) -> int:
        """1 if the cross-check differs."""
        return int(self.whole.crosscheck == "mismatch")

    def bare(self) -> str:
        """The sentence."""
        return f"{cite(self)}\n"


def cite(report: Report) -> str:
    """The sentence of a paper on the total: counts, input, and the counters that agree.

    Raises:
        DscalcError: the report has no total, or its MACs are not known.
    """
    whole = report.whole
    if whole.unknown:
        raise DscalcError(f"the MACs are not known: {whole.no_formula}")
    cost = whole.as_is.cost
    name, _, source = report.title.partition(": ")
    if not source:
        name, _, source = name.partition("; ")
    subject = f"{name} ({source})" if source else name
    flops = f"{2 * cost.macs:,} FLOPs at 2 for each MAC"
    has = f"{cost.macs:,} MACs ({flops}) and {cost.params:,} params"
    if report.command == "compare":
        subject = f"A convolution, {subject},"
    if report.block and whole.rewritten:
        after = whole.replacement.cost
        has += f", and as {report.block} {after.macs:,} MACs and {after.params:,} params"
    has += f" for an input of {report.inputs}" if report.inputs else ""
    return (
        f"{subject} has {has}: MACs are the products of convolutions, linear layers and matrices, "
        "without biases, norms, activations and pools "
        f"(dscalc {__version__}, {_counted_too(report)})."
    )


def _counted_too(report: Report) -> str:
    if report.whole.crosscheck in ("skipped", "not proved"):
        return "by formula"
    from dscalc.pytorch.crosscheck import versions

    if report.whole.crosscheck == "mismatch":
        return f"which {versions()} count otherwise"
    if report.command == "model":  # fvcore's own total of a model counts more, or misses some
        return (
            f"exactly as torch's FlopCounterMode counts it, and as {versions()} count each "
            "convolution and linear layer"
        )
    return f"exactly as {versions()} count it"

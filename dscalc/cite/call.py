"""One sentence for a paper."""

from dataclasses import dataclass, fields

from dscalc._version import __version__
from dscalc.errors import DscalcError
from dscalc.report.report import Report


@dataclass(eq=False, repr=False)
class Citation(Report):
    """A sentence in place of a report."""

    @property
    def exit_code(self) -> int:
        """1 if the cross-check differs."""
        return int(self.total is not None and self.total.crosscheck == "mismatch")

    def bare(self) -> str:
        """The sentence."""
        return f"{cite(self)}\n"


def as_citation(report: Report) -> Citation:
    """The report as a sentence."""
    return Citation(**{each.name: getattr(report, each.name) for each in fields(Report)})


def cite(report: Report) -> str:
    """The sentence of a paper on the total: counts, input, and the counters that agree.

    Raises:
        DscalcError: the MACs are not known.
    """
    assert report.total is not None
    if report.total.unknown:
        raise DscalcError(f"the MACs are not known: {report.total.no_formula}")
    cost = report.total.as_is.cost
    name, _, source = report.title.partition(": ")
    subject = f"{name} ({source})" if source else name
    flops = f"{2 * cost.macs:,} FLOPs at 2 for each MAC"
    has = f"{cost.macs:,} MACs ({flops}) and {cost.params:,} params"
    if report.command == "compare":
        after = report.total.replacement.cost
        subject = f"A convolution, {subject},"
        has += f", and as {report.block} {after.macs:,} MACs and {after.params:,} params"
    has += f" for an input of {report.inputs}" if report.inputs else ""
    return (
        f"{subject} has {has}: MACs are the products of convolutions, linear layers and matrices, "
        "without biases, norms, activations and pools "
        f"(dscalc {__version__}, {_counted_too(report)})."
    )


def _counted_too(report: Report) -> str:
    assert report.total is not None
    if report.total.crosscheck in ("skipped", "not proved"):
        return "by formula"
    from dscalc.pytorch.crosscheck import versions

    if report.total.crosscheck == "mismatch":
        return f"which {versions()} count otherwise"
    if report.command == "model":  # fvcore's own total of a model counts more, or misses some
        return (
            f"exactly as torch's FlopCounterMode counts it, and as {versions()} count each "
            "convolution and linear layer"
        )
    return f"exactly as {versions()} count it"

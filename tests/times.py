"""Invented times of a row."""

from dscalc.bench.measurement import Environment, Limits, Measurement, Speedup, Time

HERE = Environment("cpu", "Some CPU", "2.13.0", 2, "float32", False, False)
LIMITS = Limits(100.0, 10.0)


def took(row, as_is, rewritten, iqr=0.0, faults=0.0, spread=1.01, here=HERE, limits=LIMITS):
    """The row, had it taken these microseconds, with an interval of the ratio ``spread`` wide."""
    ratio = as_is / rewritten
    steps = {step.name: Time(10.0, 0.0, 0.0) for step in row.rewritten.steps}
    return row._replace(
        extra=Measurement(
            Time(as_is, iqr, faults),
            Time(rewritten, 0.0, 0.0),
            steps,
            here,
            Speedup(ratio, ratio / spread, ratio * spread),
            limits,
        )
    )

"""The fields of each command, by its name."""

from dscalc.bench.command import FIELDS as BENCH
from dscalc.core import fields as vocabularies
from dscalc.report.outcomes import FIELDS as CHECK

VOCABULARIES = {
    "compare": vocabularies.of_layers,
    "blocks": vocabularies.of_blocks,
    "network": vocabularies.of_networks,
    "model": vocabularies.of_models,
    "bench": BENCH,
    "check": lambda block, unit: CHECK,
}


def fields(command, block, unit="macs"):
    return VOCABULARIES[command](block, unit)


def find(name, command, block, unit="macs"):
    return vocabularies.find(name, VOCABULARIES[command], block, unit)


def values(row, known):
    return known.record(row)

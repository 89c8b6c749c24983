"""The fields of each command, by its name."""

from dscalc.bench.command import FIELDS as BENCH
from dscalc.core import fields as vocabularies
from dscalc.report.outcomes import FIELDS as CHECK

VOCABULARIES = {
    "compare": vocabularies.layer_fields,
    "blocks": vocabularies.block_fields,
    "network": vocabularies.network_fields,
    "model": vocabularies.model_fields,
    "bench": BENCH,
    "check": lambda block, unit: CHECK,
}


def fields(command, block, unit="macs"):
    return VOCABULARIES[command](block, unit)


def find(name, command, block, unit="macs"):
    return vocabularies.find(name, VOCABULARIES[command], block, unit)


def values(row, known):
    return known.record(row)

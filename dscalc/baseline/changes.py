"""Changes from some rows to others: rows that are added, removed, dearer, cheaper or renamed."""

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

from dscalc.core.row import Row, Sizes

ChangeKind = Literal["added", "removed", "dearer", "cheaper", "renamed", "same"]
Noun = Literal["macs", "params"]
NOUNS: tuple[Noun, ...] = ("macs", "params")


class Change(NamedTuple):
    """What became of a row.

    Args:
        kind: added, removed, dearer, cheaper, renamed or same. Dearer and cheaper compare the MACs
            as it is; if these are equal or unknown, the params.
        before: the row in the baseline; None if it was added.
        after: the row now; None if it was removed.
    """

    kind: ChangeKind
    before: Row | None
    after: Row | None

    @property
    def row(self) -> Row:
        """The row now, or before if it was removed."""
        row = self.after or self.before
        assert row is not None
        return row

    @property
    def renamed(self) -> bool:
        """Whether the name differs."""
        return bool(self.before and self.after and self.before.name != self.after.name)

    def difference(self, noun: Noun) -> int | None:
        """After - before; None if either is not known."""
        before, after = count_of(self.before, noun), count_of(self.after, noun)
        return None if before is None or after is None else after - before


def count_of(row: Row | None, noun: Noun) -> int | None:
    """MACs or params of a row as it is: 0 if there is no row, None if they are not known."""
    if row is None:
        return 0
    if noun == "macs":
        return None if row.unknown else row.as_is.cost.macs
    return row.as_is.cost.params


def changes(before: Sequence[Row], after: Sequence[Row]) -> list[Change]:
    """The change of each row in ``after``, in order, then the removed rows.

    A row matches the row before of the same name, kind, sizes and cost; else a row of the same
    kind, sizes and cost under another name, as after an inserted layer; else the row of the same
    name, if possible of the same kind. If all names are the same as before, names alone decide: if
    a network gets wider, a layer can have the old sizes of the next.
    """
    named = sorted(str(row.name) for row in before) == sorted(str(row.name) for row in after)
    keys = [_name_and_look, _look, attrgetter("name", "kind"), attrgetter("name")]
    if named:
        keys.remove(_look)
    pairs: dict[int, int] = {}  # place in after -> place in before
    left = dict(enumerate(before))
    for key in keys:
        waiting: dict[Hashable, deque[int]] = defaultdict(deque)
        for place, row in left.items():
            waiting[key(row)].append(place)
        for place, row in enumerate(after):
            if place not in pairs and (same := waiting.get(key(row))):
                pairs[place] = same.popleft()
                del left[pairs[place]]
    found = [
        _change(before[pairs[place]], row) if place in pairs else Change("added", None, row)
        for place, row in enumerate(after)
    ]
    return found + [Change("removed", row, None) for row in left.values()]


def _change(before: Row, after: Row) -> Change:
    found = Change("same", before, after)
    difference = found.difference("macs") or found.difference("params") or 0
    if difference:
        return found._replace(kind="dearer" if difference > 0 else "cheaper")
    return found._replace(kind="renamed") if found.renamed else found


_LOOK = (
    *("kind", "as_is.cost.macs", "as_is.cost.params"),
    *(f"layer.{name}" for name in Sizes._fields if name != "batch_size"),
)
_look, _name_and_look = attrgetter(*_LOOK), attrgetter("name", *_LOOK)

"""Splits that name or number their classes differently. In: their label tables. Out: one table, and train ids in it.

Classes are the same where their names are; values of masks are kept where all tables agree on them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE, LabelClass, LabelTable


def joint_table(tables: Sequence[LabelTable]) -> LabelTable:
    """The classes of all tables, in the order in which they come; with values of its own where theirs disagree."""
    first = tables[0]
    classes: dict[str, LabelClass] = {}
    for c in (c for table in tables for c in table.classes):
        classes.setdefault(c.name, c)
    owners: dict[int, str] = {}
    agree = all(table.masks == first.masks for table in tables)
    agree = agree and all(c.values == classes[c.name].values for table in tables for c in table.classes)
    agree = agree and all(owners.setdefault(v, c.name) == c.name for c in classes.values() for v in c.values)
    if agree:
        return replace(first, classes=tuple(classes.values()), ignore=tuple(v for v in first.ignore if v not in owners))
    numbered = tuple(replace(c, values=(k,)) for k, c in enumerate(classes.values()))
    return replace(first, masks="values", classes=numbered, ignore=())


def ids_in(table: LabelTable, own: LabelTable) -> npt.NDArray[np.int16]:
    """[K + 1] the train id in `table` of each class of `own`, by its name; IGNORE last, where ids[IGNORE] finds it."""
    return np.array([*(table.names.index(name) for name in own.names), IGNORE], np.int16)

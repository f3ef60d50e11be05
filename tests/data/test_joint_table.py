"""One table of several: classes by name, values kept where all agree."""

from panfpn.data.joint_table import ids_in, joint_table
from panfpn.labels import IGNORE, LabelTable


def table(ignore: tuple[int, ...] = (255,), **values: int | list[int]) -> LabelTable:
    return LabelTable.from_dict({
        "ignore": list(ignore), "classes": [{"name": name, "value": value} for name, value in values.items()],
    })  # fmt: skip


def test_values_on_which_all_agree_are_kept() -> None:
    joint = joint_table([table(cat=3, dog=5), table(cow=9, dog=5)])
    assert {c.name: c.values for c in joint.classes} == {"cat": (3,), "dog": (5,), "cow": (9,)}
    assert joint.ignore == (255,)
    assert ids_in(joint, table(cow=9, dog=5)).tolist() == [2, 1, IGNORE]


def test_values_that_disagree_are_numbered_anew() -> None:
    for other in (table(cat=4), table(dog=3), table(dog=[7, 3])):
        joint = joint_table([table(cat=3), other])
        assert [c.values for c in joint.classes] == [(k,) for k in range(joint.num_classes)]
        assert joint.names == tuple(dict.fromkeys(("cat", *other.names)))


def test_a_value_that_another_split_ignores_is_a_class() -> None:
    assert joint_table([table(cat=3, ignore=(7, 255)), table(dog=7)]).ignore == (255,)


def test_one_table_stays() -> None:
    assert joint_table([table(cat=3)] * 2) == table(cat=3)

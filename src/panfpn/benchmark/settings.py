"""What a benchmark runs without data or downloads. In: a recipe or YAML file. Out: its settings, classes, test size."""

from pathlib import Path

from panfpn import recipes
from panfpn.build import build_dataset
from panfpn.config import TrainConfig
from panfpn.data.layouts.scenes import scenes_table
from panfpn.labels import LabelTable
from panfpn.tasks import task_type
from panfpn.weights.zoo import PUBLISHED

# Height and width of a typical image: that of the data set, or for ADE20K the 4:3 photo that fits its test scale.
_TEST_SIZES = {"cityscapes": (1024, 2048), "ade20k": (512, 683), "camvid": (360, 480)}
_OTHER_SIZE = (512, 512)
_GPUS = 4  # that each of the published models was trained on


def starting_config(name: str) -> TrainConfig:
    """The settings of a recipe or a YAML file; ValueError for a name that is neither."""
    return TrainConfig.from_yaml(Path(name)) if is_yaml(name) else recipes.find(name)()


def is_yaml(name: str) -> bool:
    """Whether a name is a configuration file's."""
    return name.endswith((".yaml", ".yml"))


def published_config(name: str) -> TrainConfig:
    """The recipe of a published model with the batch that one of its four GPUs had, which its memory was given for."""
    assert name in PUBLISHED
    config = recipes.find(name)()
    return config.changed(train__batch_size=config.train.batch_size // _GPUS)


def without_weights(config: TrainConfig) -> TrainConfig:
    """The same network with random weights: they are as fast, and need no download."""
    config = config.changed(model__pretrained=False, model__backbone_weights=None, model__start_from=None)
    counted = isinstance(config.loss.class_weights, str)  # in images, which there are none of
    return config.changed(loss__class_weights=None) if counted else config


def table_for(config: TrainConfig, num_classes: int | None = None) -> LabelTable:
    """The classes of a recipe: `num_classes` nameless ones, or those of its data set, for which no data are needed.

    Raises:
        ValueError: a folder of one's own that is not given, so that nobody knows how many classes there are.
    """
    num_classes = num_classes or config.model.num_classes
    if num_classes:
        things = task_type(config.model.architecture).needs_segments  # every other class is one of things, then
        classes = [{"name": f"class {k}", "value": k, "thing": things and k % 2 == 0} for k in range(num_classes)]
        return LabelTable.from_dict({"name": f"{num_classes} classes", "classes": classes})
    if config.data.dataset == "scenes":
        return scenes_table()
    if config.data.dataset == "folder":
        if config.data.root is None:
            raise ValueError(f"recipe {config.run.name!r} learns the classes of your own data; give --num-classes")
        return build_dataset(config.data, config.data.val_split).table
    return LabelTable.named(config.data.dataset)


def test_size(table: LabelTable) -> tuple[int, int]:
    """Height and width of a typical image with these classes."""
    return _TEST_SIZES.get(table.name, _OTHER_SIZE)

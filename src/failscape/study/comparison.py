"""The study that puts classifiers side by side."""

from collections.abc import Sequence
from typing import Any

from failscape.errors import ConfigError
from failscape.study.config import StudyConfig


def comparison_study(
    classifiers: Sequence[str],
    *,
    images: str,
    generator: str,
    oracle: str | None = None,
    limit: int | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
) -> StudyConfig:
    """Return the study of how classifiers differ: far from what they get right, corrupted, and along which styles.

    Args:
        classifiers: specs of at least two; the first is compared with each of the others.
        images: the spec of the labelled images that are corrupted.
        generator: the spec of one with styles that can be asked for each class.
        oracle: the spec of another classifier, which judges the pictures shown.
        limit: take at most so many images.
        settings: method to settings that differ from the defaults.

    Raises:
        ConfigError: if there are fewer than two classifiers, or one is named twice.
    """
    if len(classifiers) < 2 or len(set(classifiers)) < len(classifiers):
        raise ConfigError(
            f"Expected at least two different classifiers to compare, but got {', '.join(classifiers) or 'none'}. Name "
            "each once; of one classifier alone a study of failure conditions tells."
        )
    first, *others = classifiers
    titles = {
        "latent-accuracy": "Accuracy far from what they get right",
        "corruption-table": "Accuracy under corruptions",
        "style-difference": "The directions on which they differ most",
    }
    config: dict[str, Any] = {
        "name": "compare",
        "images": {"spec": images, "only": "all"} | ({} if limit is None else {"limit": limit}),
        "classifier": {"spec": first},
        "generator": {"spec": generator},
        "steps": [
            {"method": method, "title": title, "settings": {"others": others} | (settings or {}).get(method, {})}
            for method, title in titles.items()
        ],
    }
    if oracle is not None:
        config["oracle"] = {"spec": oracle}
    return StudyConfig.from_mapping(config)

"""The study that `failscape demo` runs, from nothing but what the package holds."""

from typing import Any

from failscape.study.config import StudyConfig
from failscape.study.failure_conditions import failure_steps

_TEN, _TWO = "embedded:mnist-vae-10d", "embedded:mnist-vae-2d"

# Fewer samples than the defaults: a demo is to end within a minute and a half.
_QUICK: dict[str, dict[str, Any]] = {
    "style-influence": {"samples": 3000, "top": 6, "mistakes": 0},
    "corner-cases": {"per_class": 2, "joint": 1},
    "real-directions": {"top": 6},
    "latent-accuracy": {"samples": 4000, "smallest_bin": 25},
    "corruption-table": {"samples": 250},
    "degradation": {"classes": ["8"]},
}


def demo_study() -> StudyConfig:
    """Return the demo: what makes a classifier fail, what is it unsure of, and why does another get digits wrong?"""
    failures = failure_steps(others=["embedded:mnist-clean"], clean="embedded:mnist-test", settings=_QUICK)
    another: dict[str, Any] = {
        "classifier": "embedded:mnist-clean",
        "oracle": "embedded:mnist-oracle-clean",
        "generator": _TEN,
        "images": {"spec": "embedded:mnist-test", "only": "mistakes"},
    }
    return StudyConfig.from_mapping(
        {
            "name": "demo",
            "images": {"spec": "embedded:mnist-test+half-corrupted", "only": "all", "limit": 300},
            "classifier": {"spec": "embedded:mnist-corrupted"},
            "oracle": {"spec": "embedded:mnist-oracle-corrupted"},
            "generator": {"spec": "embedded:mnist-stylegan2"},
            "steps": [
                # The map of samples takes longer than all it shows here.
                *(step for step in failures if step["method"] != "latent-map"),
                {
                    "method": "uncertain-samples",
                    "title": "What it is unsure of",
                    "images": {"spec": "embedded:mnist-test+half-corrupted", "only": "all", "limit": 2000},
                    "settings": {"per_class": 20, "rows": 10, "real_rows": 10},
                },
                another
                | {
                    "method": "sympathetic-examples",
                    "name": "smallest-change",
                    "title": "Another classifier: the smallest change that puts each mistake right",
                    "settings": {"mode": "boundary"},
                },
                another
                | {
                    "method": "sympathetic-examples",
                    "name": "convincing-change",
                    "title": "The smallest change that makes it sure",
                    "settings": {"mode": "confident"},
                },
                another
                | {
                    "method": "sympathetic-examples",
                    "name": "latent-plane",
                    "title": "The same in a latent space that can be seen whole",
                    "generator": _TWO,
                    "images": {"spec": "embedded:mnist-test", "only": "mistakes", "limit": 40},
                    "settings": {"mode": "boundary"},
                },
                another | {"method": "perturbation-heatmap", "title": "Where its images are changed most often"},
                another | {"method": "edge-cases", "title": "Images on its boundary, for a person to label"},
            ],
        }
    )

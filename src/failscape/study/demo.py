"""The study that `failscape demo` runs, from nothing but what the package holds."""

from failscape.study.config import StudyConfig

_TEN, _TWO = "embedded:mnist-vae-10d", "embedded:mnist-vae-2d"


def demo_study() -> StudyConfig:
    """Return the demo: why does a good classifier get these digits wrong, and what is another one unsure of?"""
    return StudyConfig.from_mapping(
        {
            "name": "demo",
            "images": {"spec": "embedded:mnist-test", "only": "mistakes"},
            "classifier": {"spec": "embedded:mnist-clean"},
            "oracle": {"spec": "embedded:mnist-oracle-clean"},
            "generator": {"spec": _TEN},
            "steps": [
                {
                    "method": "sympathetic-examples",
                    "name": "smallest-change",
                    "title": "The smallest change that puts each mistake right",
                    "settings": {"mode": "boundary"},
                },
                {
                    "method": "sympathetic-examples",
                    "name": "convincing-change",
                    "title": "The smallest change that makes the classifier sure",
                    "settings": {"mode": "confident"},
                },
                {
                    "method": "sympathetic-examples",
                    "name": "latent-plane",
                    "title": "The same in a latent space that can be seen whole",
                    "generator": _TWO,
                    "settings": {"mode": "boundary"},
                },
                {
                    "method": "perturbation-heatmap",
                    "title": "Where the images are changed most often",
                },
                {
                    "method": "edge-cases",
                    "title": "Images on the boundary, for a person to label",
                },
                {
                    "method": "uncertain-samples",
                    "title": "What another classifier, trained on corrupted digits, is unsure of",
                    "classifier": "embedded:mnist-corrupted",
                    "oracle": "embedded:mnist-oracle-corrupted",
                    "generator": "embedded:mnist-stylegan2",
                    "images": {"spec": "embedded:mnist-test+half-corrupted", "only": "all", "limit": 2000},
                    "settings": {"per_class": 20, "rows": 10, "real_rows": 10},
                },
            ],
        }
    )

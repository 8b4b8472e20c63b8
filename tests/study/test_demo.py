import tomllib

from failscape.explain import METHODS
from failscape.study.config import StudyConfig
from failscape.study.demo import demo_study
from failscape.study.methods import prepare_method


def test_the_demo_needs_nothing_but_the_package() -> None:
    config = demo_study()
    specs = [config.images.spec, config.classifier.spec, *(step.generator for step in config.steps)]
    assert config.oracle is not None
    assert config.generator is not None
    for spec in (*specs, config.oracle.spec, config.generator.spec):
        assert spec is None or spec.startswith("embedded:")


def test_every_step_of_the_demo_can_be_built() -> None:
    methods = [type(prepare_method(step).method) for step in demo_study().steps]
    assert methods == [METHODS[step.method] for step in demo_study().steps]


def test_the_demo_survives_being_written_down() -> None:
    assert StudyConfig.from_mapping(tomllib.loads(demo_study().to_toml())) == demo_study()

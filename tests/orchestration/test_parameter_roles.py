"""The roles of parameters: declared by components, known of TFX's by their type, inherited."""

import pytest

from mlplatform.orchestration.local.cache.parameter_roles import roles_of
from mlplatform.orchestration.local.errors import ParameterRoleError
from mlplatform.roles import FINGERPRINT, READ, VALUE, WRITTEN

OF_EXAMPLE_GEN = {"input_base": READ, "input_fingerprint": FINGERPRINT}


@pytest.mark.parametrize(
    ("component", "roles"),
    [
        ("tfx.components.example_gen.csv_example_gen.component.CsvExampleGen", OF_EXAMPLE_GEN),
        ("tfx.components.pusher.component.Pusher", {"push_destination": WRITTEN}),
        ("tfx.components.trainer.component.Trainer", {}),
        (
            "mlplatform.components.dataset_versioner.component.DatasetVersioner",
            {"store": WRITTEN, "erasures": READ, "taxonomy": READ},
        ),
        ("mlplatform.components.model_trainer.component.ModelTrainer", {"work_dir": WRITTEN}),
        ("mlplatform.components.serving_pusher.component.ServingPusher", {"models_dir": WRITTEN}),
        (
            "mlplatform.components.image_example_gen.component.ImageExampleGen",
            {
                **OF_EXAMPLE_GEN,
                **dict.fromkeys(("layout", "label_feature", "also_feature", "split_by", "labels"), VALUE),
                "reports_dir": WRITTEN,
            },
        ),
        ("not_here.Component", {}),
        ("NoModule", {}),
    ],
)
def test_what_components_declare(component, roles):
    assert roles_of(component) == roles


def test_an_unknown_role_is_an_error_that_names_all(tmp_path, monkeypatch):
    (tmp_path / "with_roles.py").write_text("class C:\n    PARAMETER_ROLES = {'photos': 'reads'}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ParameterRoleError, match="'reads' as role of 'photos'; the roles are read, written"):
        roles_of("with_roles.C")

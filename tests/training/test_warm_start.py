"""A training that starts from an earlier model may have passes of its own number."""

from mlplatform.training.image_classifier_settings import ClassifierSettings


def test_a_warm_start_may_have_passes_of_its_own_number() -> None:
    assert ClassifierSettings(epochs=7).epochs_from(has_base_model=True) == 7
    fewer = ClassifierSettings(epochs=7, warm_start_epochs=3)
    assert (fewer.epochs_from(has_base_model=False), fewer.epochs_from(has_base_model=True)) == (7, 3)

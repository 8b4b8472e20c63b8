from failscape import labels


def test_names() -> None:
    assert set(labels.__all__) == {
        "FORMATS",
        "NOT_ANY",
        "NOT_ANY_NAME",
        "ORIGINS",
        "QUEUES",
        "Agreement",
        "Decision",
        "Event",
        "ExportReport",
        "ImportReport",
        "LabelImage",
        "LabelStore",
        "LabelTask",
        "NewLabel",
        "OrderComparison",
        "OrderShare",
        "Origin",
        "PairAgreement",
        "Progress",
        "Project",
        "Queue",
        "cohen_kappa",
        "compare_orders",
        "consensus",
        "decisions",
        "export_labels",
        "fleiss_kappa",
        "import_labels",
        "label_task",
        "labelled_images",
        "measure_agreement",
        "project_of",
        "teaching_value",
    }
    for name in labels.__all__:
        assert getattr(labels, name) is not None

"""The index of our kinds of problem: a new kind is one folder and its line here. It imports nothing, for `--help`."""

TASKS = {
    "classification": "hilum.tasks.classification.question:Classification",
    "detection": "hilum.tasks.detection.question:Detection",
    "enhancement": "hilum.tasks.enhancement.question:Enhancement",
    "findings": "hilum.tasks.findings.question:Findings",
    "instances": "hilum.tasks.instances.question:InstanceSegmentation",
    "prompted": "hilum.tasks.prompted.question:Prompted",
    "reconstruction": "hilum.tasks.enhancement.reconstruction:Reconstruction",
    "registration": "hilum.tasks.registration.question:Registration",
    "regression": "hilum.tasks.regression.question:Regression",
    "representation": "hilum.tasks.representation:Representation",
    "segmentation": "hilum.tasks.segmentation.question:Segmentation",
    "survival": "hilum.tasks.survival.question:Survival",
    "synthesis": "hilum.tasks.synthesis:Synthesis",
}
# {name that others have for a kind of problem: how one asks for it here}, where it is unlike the name here.
ELSEWHERE = {
    "anomaly_detection": "the kind of the answer, such as classification: "
    "the gate of each model refuses images unlike those of training",
    "denoising": "enhancement",
    "generation": "synthesis",
    "grading": "classification, whose classes may have an order",
    "image_generation": "synthesis",
    "image_translation": "enhancement",
    "instance_segmentation": "instances",
    "interactive_segmentation": "prompted",
    "localization": "detection",
    "multi_label_classification": "findings",
    "multi_task": "multitask for all kinds that the references fit, or some as in segmentation+classification",
    "multilabel_classification": "findings",
    "ordinal_regression": "classification, whose classes may have an order",
    "prognosis": "survival",
    "self_supervised_learning": "representation, by `hilum pretrain`",
    "super_resolution": "enhancement",
    "time_to_event": "survival",
    "uncertainty_estimation": "the kind of the answer, such as classification: "
    "each states its uncertainty, by the method that --uncertainty of `predict` and `evaluate` names",
}

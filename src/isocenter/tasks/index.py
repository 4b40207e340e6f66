"""The index of our kinds of problem: a new kind is one folder and its line here. It imports nothing, for `--help`."""

TASKS = {
    "classification": "isocenter.tasks.classification.question:Classification",
    "detection": "isocenter.tasks.detection.question:Detection",
    "enhancement": "isocenter.tasks.enhancement.question:Enhancement",
    "findings": "isocenter.tasks.findings.question:Findings",
    "instances": "isocenter.tasks.instances.question:InstanceSegmentation",
    "prompted": "isocenter.tasks.prompted.question:Prompted",
    "reconstruction": "isocenter.tasks.enhancement.reconstruction:Reconstruction",
    "registration": "isocenter.tasks.registration.question:Registration",
    "regression": "isocenter.tasks.regression.question:Regression",
    "representation": "isocenter.tasks.representation:Representation",
    "segmentation": "isocenter.tasks.segmentation.question:Segmentation",
    "survival": "isocenter.tasks.survival.question:Survival",
    "synthesis": "isocenter.tasks.synthesis:Synthesis",
}

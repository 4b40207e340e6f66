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

"""Options of the verbs: one dataclass each, of which keywords, flags and their tables are made.

They import neither torch nor the verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.options.images import ConvertOptions, RegisterFramesOptions, RegisterOptions, ViewOptions
    from isocenter.options.models import (
        AdoptOptions,
        CalibrateOptions,
        EmbedOptions,
        ExplainOptions,
        NetworksOptions,
        PackageOptions,
        PredictOptions,
        WeightsOptions,
    )
    from isocenter.options.node import (
        ChangeStatusOptions,
        ExportAuditOptions,
        FeedbackOptions,
        ImportLabelsOptions,
        MonitorOptions,
        NextLabelsOptions,
        PromoteChangeOptions,
        RollBackChangeOptions,
        RouteOptions,
        ServeOptions,
        ShadowChangeOptions,
        SplitChangeOptions,
        VerifyAuditOptions,
    )
    from isocenter.options.records import (
        CheckChangeOptions,
        DocumentOptions,
        ProposeChangeOptions,
        StudyAnalyseOptions,
        StudyAssignOptions,
        StudyLockOptions,
        StudyPlanOptions,
        StudyRandomiseOptions,
        StudySizeOptions,
        TraceRequirementsOptions,
        VerifyDocumentsOptions,
    )
    from isocenter.options.shared import LARGEST_SEED, Node, Overwrite, named
    from isocenter.options.training import (
        CacheOptions,
        CasesOptions,
        CheckOptions,
        CompareOptions,
        DemoOptions,
        EnsembleOptions,
        EvaluateOptions,
        PlanOptions,
        PretrainOptions,
        TrainOptions,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

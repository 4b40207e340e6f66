"""Is the data set fit to learn from: what is here, what is wrong, who leaks into whom."""

from isocenter.quality.examine import Examination, Progress, examine, retested
from isocenter.quality.look import Look, voxel_digest
from isocenter.quality.twins import Twin

__all__ = ["Examination", "Look", "Progress", "Twin", "examine", "retested", "voxel_digest"]

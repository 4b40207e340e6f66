"""Is the data set fit to learn from: what is here, what is wrong, who leaks into whom."""

from isocenter.quality.examine import Examination, Progress, examine

__all__ = ["Examination", "Progress", "examine"]

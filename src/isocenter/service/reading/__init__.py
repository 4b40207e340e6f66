"""Images and answers as people read them on the node's page, what they correct, and what they say of it."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)

"""Images and answers as people read them on the node's page, what they correct, and what they say of it."""

from hilum.lazy import lazy_index

lazy_index(__name__)

"""Objects on disk: received whole or not at all, named by hashes, written down for the keeper."""

from hilum.lazy import lazy_index

lazy_index(__name__)

from hilum.lazy import lazy_index

lazy_index(__name__)

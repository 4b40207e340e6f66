"""Records of a node: studies, jobs, answers and deliveries in one database, SQLite or PostgreSQL."""

from hilum.lazy import lazy_index

lazy_index(__name__)

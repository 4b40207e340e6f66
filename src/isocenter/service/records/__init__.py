"""Records of a node: studies, jobs, answers and deliveries in one database, SQLite or PostgreSQL."""

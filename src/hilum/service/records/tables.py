"""The tables of a node. Times are seconds since 1970 by the database's clock; keys are hashes of UIDs.

Identity stands in `studies.attributes` and `series.attributes`, as DICOM JSON, and in the columns of `studies` by which
it is searched; no log reads them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem

metadata = MetaData()
KEY, UID, WORD = String(32), String(64), String(16)
# By the bytes of its letters, so that an index serves what begins alike, whatever the language of the database is.
SOUGHT = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite counts rows up by itself only in an INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")


# Values of a row by its columns, as SQLAlchemy takes them: also what the database is to work out.
RowValues = dict[str, Any]


def _table(name: str, *parts: SchemaItem) -> Table:
    return Table(name, metadata, *parts)


# state: receiving | complete | done | aside, where somebody has to look at it; outcome and reason: once it is settled
#        going | gone, of which retention deletes, or has deleted, the objects
# revision: raised by every object that comes after it was complete
# contested: path of an object that has the UID of one of its own, but other bytes, until somebody has decided
# asides: the paths of all such objects that were ever noted; patient: pseudonym, once the study is complete
# is_searchable: whether the columns after it hold what its attributes state, as `searching.py` writes them
# objects_gone_at, results_gone_at: when retention has deleted its objects; its results and identity
STUDIES = _table(
    "studies",
    Column("study", KEY, primary_key=True),
    Column("uid", UID, nullable=False),
    Column("state", WORD, nullable=False),
    Column("revision", Integer, nullable=False, default=1),
    Column("instances", Integer, nullable=False, default=0),
    Column("received_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("complete_at", Float),
    Column("routed", Integer, nullable=False, default=0),
    Column("outcome", WORD),
    Column("reason", Text),
    Column("contested", Text),
    Column("asides", JSON, nullable=False, default=[]),
    Column("patient", WORD),
    Column("people", JSON, nullable=False, default=[]),
    Column("attributes", JSON),
    Column("is_searchable", Boolean, nullable=False, default=False),
    Column("patient_id", SOUGHT),
    Column("accession_number", SOUGHT),
    Column("study_date", SOUGHT),
    Column("name_alphabetic", SOUGHT),
    Column("name_ideographic", SOUGHT),
    Column("name_phonetic", SOUGHT),
    Column("objects_gone_at", Float),
    Column("results_gone_at", Float),
)
for _column in list(STUDIES.c)[-8:-2]:
    Index(f"studies_by_{_column.name}", _column)
_unsearchable = STUDIES.c.is_searchable.is_(False)
Index("studies_unsearchable", STUDIES.c.study, sqlite_where=_unsearchable, postgresql_where=_unsearchable)
Index("studies_by_time", STUDIES.c.received_at, STUDIES.c.study)
Index("studies_by_patient", STUDIES.c.patient)
Index("studies_by_state", STUDIES.c.state, STUDIES.c.last_at)
# The keeper asks for these several times a second, among all studies that there ever were.
_unrouted = STUDIES.c.routed < STUDIES.c.revision
Index("studies_to_route", STUDIES.c.complete_at, sqlite_where=_unrouted, postgresql_where=_unrouted)

# Filled from the headers when the study is complete: what rules and monitoring ask for.
SERIES_ROWS = _table(
    "series",
    Column("study", KEY, primary_key=True),
    Column("series", KEY, primary_key=True),
    Column("uid", UID, nullable=False),
    Column("modality", WORD),
    Column("instances", Integer, nullable=False, default=0),
    Column("inputs_hash", String(64)),
    Column("spacing_mm", JSON),
    Column("shape", JSON),
    Column("orientation", WORD),
    Column("field_of_view_mm", JSON),
    Column("frames", Integer),
    Column("problem", Text),
    Column("is_localizer", Boolean),
    Column("manufacturer", Text),
    Column("model", Text),
    Column("station", KEY),
    Column("software", Text),
    Column("protocol", Text),
    Column("kernel", Text),
    Column("field_strength", Float),
    Column("attributes", JSON),
    ForeignKeyConstraint(["study"], ["studies.study"]),
)
Index("series_by_key", SERIES_ROWS.c.series)
Index("series_by_modality", SERIES_ROWS.c.modality, SERIES_ROWS.c.study)

INSTANCES = _table(
    "instances",
    Column("study", KEY, primary_key=True),
    Column("series", KEY, primary_key=True),
    Column("instance", KEY, primary_key=True),
    Column("uid", UID, nullable=False),
    Column("sop_class", UID, nullable=False),
    Column("syntax", UID, nullable=False),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("peer", Text, nullable=False),
    Column("way", WORD, nullable=False),
    Column("received_at", Float, nullable=False),
    ForeignKeyConstraint(["study", "series"], ["series.study", "series.series"]),
)
Index("instances_by_uid", INSTANCES.c.uid)
Index("instances_by_key", INSTANCES.c.instance)

# Objects that a rejection note names, whether they have come or not; note: the UID of the note.
REJECTIONS = _table(
    "rejections",
    Column("study", KEY, primary_key=True),
    Column("note", UID, primary_key=True),
    Column("uid", UID, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("is_sent_again", Boolean, nullable=False, default=False),
    ForeignKeyConstraint(["study"], ["studies.study"]),
)

# A job is called by its key: (study, rule, model, inputs) can have one result, and one more after each was rejected.
# version: its number among the jobs of its rule on the same series, from 1
# state: waiting | running | sending | done | aside | cancelled | superseded
# model_version: as results state it; gate: of a model whose gate is not fitted, why
# outcome: answered | abstained | refused | failed; is_empty: whether the answer is that there is nothing
# priority: place in the queue, by its rule or order; urgency, because: what its findings make of the study, and why
JOBS = _table(
    "jobs",
    Column("job", KEY, primary_key=True),
    Column("study", KEY, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("rule", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("model_hash", String(64), nullable=False),
    Column("model_version", String(64), nullable=False, default=""),
    Column("gate", Text, nullable=False, default=""),
    Column("inputs_hash", String(64), nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("version", Integer, nullable=False, default=1),
    Column("state", WORD, nullable=False),
    Column("outcome", WORD),
    Column("is_empty", Boolean, nullable=False, default=False),
    Column("reason", Text),
    Column("priority", Integer, nullable=False),
    Column("fence", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("worker", Text),
    Column("lease_until", Float),
    Column("not_before", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("done_at", Float),
    Column("seconds", JSON),
    Column("gate_p", Float),
    Column("versions", JSON),
    Column("covariates", JSON),
    Column("urgency", Integer),
    Column("because", Text),
    UniqueConstraint("study", "rule", "model_hash", "inputs_hash", "version", name="one_result"),
    ForeignKeyConstraint(["study"], ["studies.study"]),
)
Index("jobs_by_state", JOBS.c.state, JOBS.c.priority, JOBS.c.created_at)
Index("jobs_by_study", JOBS.c.study)
Index("jobs_by_time", JOBS.c.created_at, JOBS.c.job)
Index("jobs_by_model", JOBS.c.model_hash, JOBS.c.done_at)

FINDING_ROWS = _table(
    "findings",
    Column("job", KEY, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("concept", Text, nullable=False),
    Column("row", JSON, nullable=False),
    ForeignKeyConstraint(["job"], ["jobs.job"]),
)

# What monitoring compares: of each job that reached its model, written when it ends.
# measures: {name: number} of the image; distances: {score of the gate: distance}
# features: float16, what the network saw in it, of a model with a gate
MEASURES = _table(
    "measures",
    Column("job", KEY, primary_key=True),
    Column("measures", JSON, nullable=False),
    Column("distances", JSON, nullable=False),
    Column("features", LargeBinary),
    ForeignKeyConstraint(["job"], ["jobs.job"]),
)

# Cases that a person has frozen as those with which later ones of a model are compared; the last row of a model counts.
# first_at, last_at: when the first and the last of them were done
BASELINES = _table(
    "baselines",
    Column("n", Number, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("model_hash", String(64), nullable=False),
    Column("cases", Integer, nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("frozen_at", Float, nullable=False),
    Column("frozen_by", Text, nullable=False),
)
Index("baselines_by_model", BASELINES.c.model_hash, BASELINES.c.n)

# One row for each kind of change and each bound. severity: warning | urgent
# kind: input | output | concept | operation | performance
# state: open | acknowledged | closed, by a person | cleared, after quiet windows; actor, reason: of the last change
# quiet, looked_at: how many windows after it were quiet in a row, and up to which time windows were looked at
ALERTS = _table(
    "alerts",
    Column("n", Number, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("model_hash", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("severity", WORD, nullable=False),
    Column("watch", Text, nullable=False),
    Column("kind", WORD, nullable=False),
    Column("scope", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("state", WORD, nullable=False),
    Column("because", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("ended_at", Float),
    Column("quiet", Integer, nullable=False, default=0),
    Column("looked_at", Float, nullable=False),
)
Index("alerts_by_state", ALERTS.c.state, ALERTS.c.model_hash)

# What alerts have done to models, until a person undoes it. action: warn | abstain | rollback | stop
HOLDS = _table(
    "holds",
    Column("n", Number, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("action", WORD, nullable=False),
    Column("alert", BigInteger, nullable=False),
    Column("because", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("undone_at", Float),
    Column("undone_by", Text),
    UniqueConstraint("model", "action", "alert", name="one_hold"),
)
Index("holds_by_model", HOLDS.c.model, HOLDS.c.undone_at)

# job: that made it, or the correction that did
ANSWERS = _table(
    "answers",
    Column("job", KEY, primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("kind", WORD, nullable=False),
    Column("sop_class", UID),
    Column("sop_instance_uid", UID),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
)
Index("answers_by_uid", ANSWERS.c.sop_instance_uid)

# state: waiting | sent | committed | aside
# sent_as: the SOP Instance UID under which the peer has an object, where that is not the answer's own
DELIVERIES = _table(
    "deliveries",
    Column("delivery", Number, primary_key=True, autoincrement=True),
    Column("job", KEY, nullable=False),
    Column("name", String(128), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("state", WORD, nullable=False),
    Column("reason", Text),
    Column("attempts", Integer, nullable=False, default=0),
    Column("fence", Integer, nullable=False, default=0),
    Column("lease_until", Float),
    Column("next_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("sent_at", Float),
    Column("sent_as", UID),
    UniqueConstraint("job", "name", "peer", name="one_delivery"),
    ForeignKeyConstraint(["job", "name"], ["answers.job", "answers.name"]),
)
Index("deliveries_by_state", DELIVERIES.c.state, DELIVERIES.c.next_at)
Index("deliveries_by_uid", DELIVERIES.c.sent_as)

# Sent to recipients as deliveries of the answer `notice.json` of its job.
NOTICES = _table(
    "notices",
    Column("notice", KEY, primary_key=True),
    Column("job", KEY, nullable=False),
    Column("finding", Text, nullable=False),
    Column("priority", WORD, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("acknowledged_at", Float),
    UniqueConstraint("job", name="one_notice"),
    ForeignKeyConstraint(["job"], ["jobs.job"]),
)

# The unsaved strokes of a person on a result, in their order.
# judged: key of the job, or of the instance of a segmentation that another product sent
# mark: {"label", "runs"} of voxels, or {"box"}
DRAFTS = _table(
    "drafts",
    Column("draft", Number, primary_key=True, autoincrement=True),
    Column("judged", KEY, nullable=False),
    Column("account", Text, nullable=False),
    Column("stroke", UID, nullable=False),
    Column("mark", JSON, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("judged", "account", "stroke", name="one_stroke"),
)

# Results as people corrected them, each after the one of the revision before; its files lie in `results/<correction>`.
# findings: its rows, as `findings.json` has them
CORRECTIONS = _table(
    "corrections",
    Column("correction", KEY, primary_key=True),
    Column("judged", KEY, nullable=False),
    Column("study", KEY, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("account", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("findings", JSON, nullable=False),
    UniqueConstraint("judged", "revision", name="one_revision"),
    ForeignKeyConstraint(["study"], ["studies.study"]),
)
Index("corrections_by_study", CORRECTIONS.c.study)

# What people said of results. verdict: accepted | corrected | rejected; instance: SOP Instance UID of another product's
# before, after: rows of findings as they were made, and as they stand
FEEDBACK = _table(
    "feedback",
    Column("feedback", Number, primary_key=True, autoincrement=True),
    Column("judged", KEY, nullable=False),
    Column("instance", UID),
    Column("study", KEY, nullable=False),
    Column("account", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("verdict", WORD, nullable=False),
    Column("reason", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("seconds", Float),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Column("correction", KEY),
    ForeignKeyConstraint(["study"], ["studies.study"]),
)
Index("feedback_by_judged", FEEDBACK.c.judged, FEEDBACK.c.feedback)
Index("feedback_by_study", FEEDBACK.c.study)

# Results that were sampled to be read with the answer hidden. inclusion: the chance with which; week: ISO, as 2026-W48
# state: waiting | read | ended, where nobody has read it in time
BLIND_READS = _table(
    "blind",
    Column("job", KEY, primary_key=True),
    Column("inclusion", Float, nullable=False),
    Column("sampled_at", Float, nullable=False),
    Column("week", WORD, nullable=False),
    Column("state", WORD, nullable=False),
    ForeignKeyConstraint(["job"], ["jobs.job"]),
)
Index("blind_by_state", BLIND_READS.c.state)
Index("blind_by_week", BLIND_READS.c.week)

# What is true of a study, beside what the job's answer states of the label. value: 1 present, 0 absent, or a number
# at: when it became known; source: `blind`, `verdict`, or where an imported table has it from
# account: who has stated it; inclusion: of a blind read, the chance with which it was sampled; null: reported
OUTCOME_ROWS = _table(
    "outcomes",
    Column("job", KEY, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("value", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("account", Text, nullable=False),
    Column("inclusion", Float),
    ForeignKeyConstraint(["job"], ["jobs.job"]),
)

# What went wrong with a result, or could have harmed. kind: of harm, one of `incidents.KINDS`; known_on: ISO day
# checked: how the action was found to help; account, at: who changed it last, and when
INCIDENTS = _table(
    "incidents",
    Column("incident", Number, primary_key=True, autoincrement=True),
    Column("study", KEY),
    Column("kind", WORD, nullable=False),
    Column("harm", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("known_on", String(10), nullable=False),
    Column("cause", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("checked", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("at", Float, nullable=False),
    ForeignKeyConstraint(["study"], ["studies.study"]),
)

# Orders of jobs: Unified Procedure Steps, PS3.4 CC; dataset: as DICOM JSON
# state: SCHEDULED | IN PROGRESS | COMPLETED | CANCELED; is_ours: the node has claimed it
# series: keys of those that it names, none for all; priority: place of its jobs in the queue
WORKITEMS = _table(
    "workitems",
    Column("workitem", UID, primary_key=True),
    Column("state", WORD, nullable=False),
    Column("transaction_uid", UID),
    Column("is_ours", Boolean, nullable=False, default=False),
    Column("study", KEY, nullable=False),
    Column("series", JSON, nullable=False),
    Column("rule", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("dataset", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("start_at", Float, nullable=False),
    Column("done_at", Float),
)
Index("workitems_by_state", WORKITEMS.c.state)
Index("workitems_by_study", WORKITEMS.c.study)

# What happened, by whom, to what: `audit.py` says how rows are written and sealed. object: a key, a path or a name
# outcome: success | failure | refused; patient: a pseudonym
# sequence, node, previous, hash: written by the keeper when it seals a row
# event: the order of writing, which has gaps; line: of the journal that a row came by, if so, which may be read twice
AUDIT = _table(
    "audit",
    Column("event", Number, primary_key=True, autoincrement=True),
    Column("sequence", BigInteger),
    Column("at", Float, nullable=False),
    Column("node", String(64)),
    Column("actor", Text, nullable=False),
    Column("role", WORD, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("object", Text, nullable=False),
    Column("patient", WORD),
    Column("outcome", WORD, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String(64)),
    Column("hash", String(64)),
    Column("line", KEY),
    UniqueConstraint("sequence", name="one_chain"),
)
_unsealed, _by_line = AUDIT.c.sequence.is_(None), AUDIT.c.line.is_not(None)
Index("audit_to_seal", AUDIT.c.event, sqlite_where=_unsealed, postgresql_where=_unsealed)
Index("audit_by_line", AUDIT.c.line, unique=True, sqlite_where=_by_line, postgresql_where=_by_line)
Index("audit_by_action", AUDIT.c.action, AUDIT.c.sequence)
Index("audit_by_actor", AUDIT.c.actor, AUDIT.c.sequence)

# Persons. password: its hash by argon2, none for whom an OpenID provider vouches, who is its subject
# ended_at: since when nobody logs in as this person; a name is never given to another one
ACCOUNTS = _table(
    "accounts",
    Column("account", String(64), primary_key=True),
    Column("role", WORD, nullable=False),
    Column("password", Text),
    Column("subject", Text, unique=True),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
)

# session: SHA-256 of what the browser's cookie holds; used_at: raised every half a minute
SESSIONS = _table(
    "sessions",
    Column("session", String(64), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
    ForeignKeyConstraint(["account"], ["accounts.account"]),
)
Index("sessions_by_account", SESSIONS.c.account)

# Of machines. hash: SHA-256 of the token, which nobody has but its machine; account: who has made it
TOKENS = _table(
    "tokens",
    Column("token", KEY, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("role", WORD, nullable=False),
    Column("account", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ends_at", Float, nullable=False),
)

# Passwords that were wrong. attempt: SHA-256 of account and address
FAILURES = _table(
    "failures",
    Column("attempt", String(64), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("at", Float, nullable=False),
)

# Packages that answer for a model in place of that of the settings, or are to. mode: shadow | live | arm
# manifest: SHA-256 of its manifest.json; hash: of the model, as jobs have it; facts: for routing
# share, key, until: of an arm: of patients, of the hash that chooses them, its end; check_hash: SHA-256 of change.json
# began: none as long as it waits for approvals; is_taken_back: by a rollback, so that it answers nothing more
DEPLOYMENTS = _table(
    "deployments",
    Column("n", Number, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("folder", Text, nullable=False),
    Column("manifest", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("mode", WORD, nullable=False),
    Column("share", Float),
    Column("key", KEY),
    Column("until", Float),
    Column("asked_at", Float, nullable=False),
    Column("began", Float),
    Column("ended", Float),
    Column("is_taken_back", Boolean, nullable=False, default=False),
    Column("because", Text, nullable=False),
    Column("check_hash", String(64)),
)
Index("deployments_by_model", DEPLOYMENTS.c.model)

# Persons who approved a deployment that waits for it.
APPROVALS = _table(
    "approvals",
    Column("n", Number, primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("role", WORD, nullable=False),
    Column("at", Float, nullable=False),
    ForeignKeyConstraint(["n"], ["deployments.n"]),
)

# Answers of a package in shadow to jobs that are done, as differences from what was sent; the answers are not kept.
# differences: {"metric:label": number}; none as long as a worker has claimed it, or where the reason says why
SHADOW_ANSWERS = _table(
    "shadow_answers",
    Column("n", Number, primary_key=True),
    Column("job", KEY, primary_key=True),
    Column("claimed_at", Float, nullable=False),
    Column("done_at", Float),
    Column("differences", JSON),
    Column("reason", Text),
    ForeignKeyConstraint(["n"], ["deployments.n"]),
    ForeignKeyConstraint(["job"], ["jobs.job"]),
)

-- The tables of the first release, as they were. Never changed: later revisions build on them.
CREATE TABLE accounts (
    account VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    password TEXT,
    subject TEXT,
    created_at FLOAT NOT NULL,
    ended_at FLOAT,
    PRIMARY KEY (account),
    UNIQUE (subject)
);

CREATE TABLE alerts (
    n INTEGER NOT NULL,
    model VARCHAR(64) NOT NULL,
    model_hash VARCHAR(64) NOT NULL,
    at FLOAT NOT NULL,
    severity VARCHAR(16) NOT NULL,
    watch TEXT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    scope TEXT NOT NULL,
    since FLOAT NOT NULL,
    state VARCHAR(16) NOT NULL,
    because TEXT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT,
    reason TEXT,
    ended_at FLOAT,
    quiet INTEGER NOT NULL,
    looked_at FLOAT NOT NULL,
    PRIMARY KEY (n)
);

CREATE INDEX alerts_by_state ON alerts (state, model_hash);

CREATE TABLE answers (
    job VARCHAR(32) NOT NULL,
    name VARCHAR(128) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    sop_class VARCHAR(64),
    sop_instance_uid VARCHAR(64),
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    PRIMARY KEY (job, name)
);

CREATE INDEX answers_by_uid ON answers (sop_instance_uid);

CREATE TABLE audit (
    event INTEGER NOT NULL,
    sequence BIGINT,
    at FLOAT NOT NULL,
    node VARCHAR(64),
    actor TEXT NOT NULL,
    role VARCHAR(16) NOT NULL,
    address TEXT NOT NULL,
    action VARCHAR(32) NOT NULL,
    object TEXT NOT NULL,
    patient VARCHAR(16),
    outcome VARCHAR(16) NOT NULL,
    detail JSON NOT NULL,
    previous VARCHAR(64),
    hash VARCHAR(64),
    line VARCHAR(32),
    PRIMARY KEY (event),
    CONSTRAINT one_chain UNIQUE (sequence)
);

CREATE INDEX audit_by_action ON audit (action, sequence);

CREATE INDEX audit_by_actor ON audit (actor, sequence);

CREATE UNIQUE INDEX audit_by_line ON audit (line) WHERE line IS NOT NULL;

CREATE INDEX audit_to_seal ON audit (event) WHERE sequence IS NULL;

CREATE TABLE baselines (
    n INTEGER NOT NULL,
    model VARCHAR(64) NOT NULL,
    model_hash VARCHAR(64) NOT NULL,
    cases INTEGER NOT NULL,
    first_at FLOAT NOT NULL,
    last_at FLOAT NOT NULL,
    frozen_at FLOAT NOT NULL,
    frozen_by TEXT NOT NULL,
    PRIMARY KEY (n)
);

CREATE INDEX baselines_by_model ON baselines (model_hash, n);

CREATE TABLE deployments (
    n INTEGER NOT NULL,
    model VARCHAR(64) NOT NULL,
    folder TEXT NOT NULL,
    manifest VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    facts JSON NOT NULL,
    mode VARCHAR(16) NOT NULL,
    share FLOAT,
    "key" VARCHAR(32),
    until FLOAT,
    asked_at FLOAT NOT NULL,
    began FLOAT,
    ended FLOAT,
    is_taken_back BOOLEAN NOT NULL,
    because TEXT NOT NULL,
    check_hash VARCHAR(64),
    PRIMARY KEY (n)
);

CREATE INDEX deployments_by_model ON deployments (model);

CREATE TABLE drafts (
    draft INTEGER NOT NULL,
    judged VARCHAR(32) NOT NULL,
    account TEXT NOT NULL,
    stroke VARCHAR(64) NOT NULL,
    mark JSON NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (draft),
    CONSTRAINT one_stroke UNIQUE (judged, account, stroke)
);

CREATE TABLE failures (
    attempt VARCHAR(64) NOT NULL,
    count INTEGER NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (attempt)
);

CREATE TABLE holds (
    n INTEGER NOT NULL,
    model VARCHAR(64) NOT NULL,
    action VARCHAR(16) NOT NULL,
    alert BIGINT NOT NULL,
    because TEXT NOT NULL,
    since FLOAT NOT NULL,
    undone_at FLOAT,
    undone_by TEXT,
    PRIMARY KEY (n),
    CONSTRAINT one_hold UNIQUE (model, action, alert)
);

CREATE INDEX holds_by_model ON holds (model, undone_at);

CREATE TABLE studies (
    study VARCHAR(32) NOT NULL,
    uid VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    revision INTEGER NOT NULL,
    instances INTEGER NOT NULL,
    received_at FLOAT NOT NULL,
    last_at FLOAT NOT NULL,
    complete_at FLOAT,
    routed INTEGER NOT NULL,
    outcome VARCHAR(16),
    reason TEXT,
    contested TEXT,
    asides JSON NOT NULL,
    patient VARCHAR(16),
    people JSON NOT NULL,
    attributes JSON,
    is_searchable BOOLEAN NOT NULL,
    patient_id TEXT,
    accession_number TEXT,
    study_date TEXT,
    name_alphabetic TEXT,
    name_ideographic TEXT,
    name_phonetic TEXT,
    PRIMARY KEY (study)
);

CREATE INDEX studies_by_accession_number ON studies (accession_number);

CREATE INDEX studies_by_name_alphabetic ON studies (name_alphabetic);

CREATE INDEX studies_by_name_ideographic ON studies (name_ideographic);

CREATE INDEX studies_by_name_phonetic ON studies (name_phonetic);

CREATE INDEX studies_by_patient ON studies (patient);

CREATE INDEX studies_by_patient_id ON studies (patient_id);

CREATE INDEX studies_by_state ON studies (state, last_at);

CREATE INDEX studies_by_study_date ON studies (study_date);

CREATE INDEX studies_by_time ON studies (received_at, study);

CREATE INDEX studies_to_route ON studies (complete_at) WHERE routed < revision;

CREATE INDEX studies_unsearchable ON studies (study) WHERE is_searchable IS 0;

CREATE TABLE tokens (
    token VARCHAR(32) NOT NULL,
    name VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    account VARCHAR(64) NOT NULL,
    created_at FLOAT NOT NULL,
    ends_at FLOAT NOT NULL,
    PRIMARY KEY (token),
    UNIQUE (name),
    UNIQUE (hash)
);

CREATE TABLE workitems (
    workitem VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    transaction_uid VARCHAR(64),
    is_ours BOOLEAN NOT NULL,
    study VARCHAR(32) NOT NULL,
    series JSON NOT NULL,
    rule VARCHAR(64) NOT NULL,
    priority INTEGER NOT NULL,
    dataset JSON NOT NULL,
    created_at FLOAT NOT NULL,
    start_at FLOAT NOT NULL,
    done_at FLOAT,
    PRIMARY KEY (workitem)
);

CREATE INDEX workitems_by_state ON workitems (state);

CREATE INDEX workitems_by_study ON workitems (study);

CREATE TABLE approvals (
    n INTEGER NOT NULL,
    account VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (n, account),
    FOREIGN KEY(n) REFERENCES deployments (n)
);

CREATE TABLE corrections (
    correction VARCHAR(32) NOT NULL,
    judged VARCHAR(32) NOT NULL,
    study VARCHAR(32) NOT NULL,
    revision INTEGER NOT NULL,
    account TEXT NOT NULL,
    at FLOAT NOT NULL,
    findings JSON NOT NULL,
    PRIMARY KEY (correction),
    CONSTRAINT one_revision UNIQUE (judged, revision),
    FOREIGN KEY(study) REFERENCES studies (study)
);

CREATE INDEX corrections_by_study ON corrections (study);

CREATE TABLE deliveries (
    delivery INTEGER NOT NULL,
    job VARCHAR(32) NOT NULL,
    name VARCHAR(128) NOT NULL,
    peer VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    reason TEXT,
    attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    lease_until FLOAT,
    next_at FLOAT NOT NULL,
    created_at FLOAT NOT NULL,
    sent_at FLOAT,
    sent_as VARCHAR(64),
    PRIMARY KEY (delivery),
    CONSTRAINT one_delivery UNIQUE (job, name, peer),
    FOREIGN KEY(job, name) REFERENCES answers (job, name)
);

CREATE INDEX deliveries_by_state ON deliveries (state, next_at);

CREATE INDEX deliveries_by_uid ON deliveries (sent_as);

CREATE TABLE feedback (
    feedback INTEGER NOT NULL,
    judged VARCHAR(32) NOT NULL,
    instance VARCHAR(64),
    study VARCHAR(32) NOT NULL,
    account TEXT NOT NULL,
    at FLOAT NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    reason TEXT NOT NULL,
    text TEXT NOT NULL,
    seconds FLOAT,
    "before" JSON NOT NULL,
    "after" JSON NOT NULL,
    correction VARCHAR(32),
    PRIMARY KEY (feedback),
    FOREIGN KEY(study) REFERENCES studies (study)
);

CREATE INDEX feedback_by_judged ON feedback (judged, feedback);

CREATE INDEX feedback_by_study ON feedback (study);

CREATE TABLE incidents (
    incident INTEGER NOT NULL,
    study VARCHAR(32),
    kind VARCHAR(16) NOT NULL,
    harm TEXT NOT NULL,
    version TEXT NOT NULL,
    known_on VARCHAR(10) NOT NULL,
    cause TEXT NOT NULL,
    action TEXT NOT NULL,
    checked TEXT NOT NULL,
    account TEXT NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (incident),
    FOREIGN KEY(study) REFERENCES studies (study)
);

CREATE TABLE jobs (
    job VARCHAR(32) NOT NULL,
    study VARCHAR(32) NOT NULL,
    revision INTEGER NOT NULL,
    rule VARCHAR(64) NOT NULL,
    model VARCHAR(64) NOT NULL,
    model_hash VARCHAR(64) NOT NULL,
    model_version VARCHAR(64) NOT NULL,
    gate TEXT NOT NULL,
    inputs_hash VARCHAR(64) NOT NULL,
    inputs JSON NOT NULL,
    version INTEGER NOT NULL,
    state VARCHAR(16) NOT NULL,
    outcome VARCHAR(16),
    is_empty BOOLEAN NOT NULL,
    reason TEXT,
    priority INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    worker TEXT,
    lease_until FLOAT,
    not_before FLOAT NOT NULL,
    created_at FLOAT NOT NULL,
    started_at FLOAT,
    done_at FLOAT,
    seconds JSON,
    gate_p FLOAT,
    versions JSON,
    covariates JSON,
    urgency INTEGER,
    because TEXT,
    PRIMARY KEY (job),
    CONSTRAINT one_result UNIQUE (study, rule, model_hash, inputs_hash, version),
    FOREIGN KEY(study) REFERENCES studies (study)
);

CREATE INDEX jobs_by_model ON jobs (model_hash, done_at);

CREATE INDEX jobs_by_state ON jobs (state, priority, created_at);

CREATE INDEX jobs_by_study ON jobs (study);

CREATE INDEX jobs_by_time ON jobs (created_at, job);

CREATE TABLE rejections (
    study VARCHAR(32) NOT NULL,
    note VARCHAR(64) NOT NULL,
    uid VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL,
    since FLOAT NOT NULL,
    is_sent_again BOOLEAN NOT NULL,
    PRIMARY KEY (study, note, uid),
    FOREIGN KEY(study) REFERENCES studies (study)
);

CREATE TABLE series (
    study VARCHAR(32) NOT NULL,
    series VARCHAR(32) NOT NULL,
    uid VARCHAR(64) NOT NULL,
    modality VARCHAR(16),
    instances INTEGER NOT NULL,
    inputs_hash VARCHAR(64),
    spacing_mm JSON,
    shape JSON,
    orientation VARCHAR(16),
    field_of_view_mm JSON,
    frames INTEGER,
    problem TEXT,
    is_localizer BOOLEAN,
    manufacturer TEXT,
    model TEXT,
    station VARCHAR(32),
    software TEXT,
    protocol TEXT,
    kernel TEXT,
    field_strength FLOAT,
    attributes JSON,
    PRIMARY KEY (study, series),
    FOREIGN KEY(study) REFERENCES studies (study)
);

CREATE INDEX series_by_key ON series (series);

CREATE INDEX series_by_modality ON series (modality, study);

CREATE TABLE sessions (
    session VARCHAR(64) NOT NULL,
    account VARCHAR(64) NOT NULL,
    created_at FLOAT NOT NULL,
    used_at FLOAT NOT NULL,
    PRIMARY KEY (session),
    FOREIGN KEY(account) REFERENCES accounts (account)
);

CREATE INDEX sessions_by_account ON sessions (account);

CREATE TABLE blind (
    job VARCHAR(32) NOT NULL,
    inclusion FLOAT NOT NULL,
    sampled_at FLOAT NOT NULL,
    week VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    PRIMARY KEY (job),
    FOREIGN KEY(job) REFERENCES jobs (job)
);

CREATE INDEX blind_by_state ON blind (state);

CREATE INDEX blind_by_week ON blind (week);

CREATE TABLE findings (
    job VARCHAR(32) NOT NULL,
    number INTEGER NOT NULL,
    concept TEXT NOT NULL,
    "row" JSON NOT NULL,
    PRIMARY KEY (job, number),
    FOREIGN KEY(job) REFERENCES jobs (job)
);

CREATE TABLE instances (
    study VARCHAR(32) NOT NULL,
    series VARCHAR(32) NOT NULL,
    instance VARCHAR(32) NOT NULL,
    uid VARCHAR(64) NOT NULL,
    sop_class VARCHAR(64) NOT NULL,
    syntax VARCHAR(64) NOT NULL,
    path TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    peer TEXT NOT NULL,
    way VARCHAR(16) NOT NULL,
    received_at FLOAT NOT NULL,
    PRIMARY KEY (study, series, instance),
    FOREIGN KEY(study, series) REFERENCES series (study, series)
);

CREATE INDEX instances_by_key ON instances (instance);

CREATE INDEX instances_by_uid ON instances (uid);

CREATE TABLE measures (
    job VARCHAR(32) NOT NULL,
    measures JSON NOT NULL,
    distances JSON NOT NULL,
    features BLOB,
    PRIMARY KEY (job),
    FOREIGN KEY(job) REFERENCES jobs (job)
);

CREATE TABLE notices (
    notice VARCHAR(32) NOT NULL,
    job VARCHAR(32) NOT NULL,
    finding TEXT NOT NULL,
    priority VARCHAR(16) NOT NULL,
    created_at FLOAT NOT NULL,
    acknowledged_at FLOAT,
    PRIMARY KEY (notice),
    CONSTRAINT one_notice UNIQUE (job),
    FOREIGN KEY(job) REFERENCES jobs (job)
);

CREATE TABLE outcomes (
    job VARCHAR(32) NOT NULL,
    label TEXT NOT NULL,
    source VARCHAR(64) NOT NULL,
    value FLOAT NOT NULL,
    at FLOAT NOT NULL,
    account TEXT NOT NULL,
    inclusion FLOAT,
    PRIMARY KEY (job, label, source),
    FOREIGN KEY(job) REFERENCES jobs (job)
);

CREATE TABLE shadow_answers (
    n INTEGER NOT NULL,
    job VARCHAR(32) NOT NULL,
    claimed_at FLOAT NOT NULL,
    done_at FLOAT,
    differences JSON,
    reason TEXT,
    PRIMARY KEY (n, job),
    FOREIGN KEY(n) REFERENCES deployments (n),
    FOREIGN KEY(job) REFERENCES jobs (job)
);

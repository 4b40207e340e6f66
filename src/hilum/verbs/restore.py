"""`restore`: a node of what `backup` has written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from hilum import keywords
from hilum.options.node import RestoreOptions
from hilum.service import node_backup
from hilum.service.node_backup import RestoredNode
from hilum.values import record_schema
from hilum.verbs import audit, serve
from hilum.verbs.audit import AuditCheck


@dataclass(frozen=True)
class VerifiedNode:
    """A node that was restored, and its audit as it was sealed."""

    node: RestoredNode
    audit: AuditCheck

    @property
    def notes(self) -> list[str]:
        """What is otherwise than it was."""
        key = "the patient key here is not that of the backup: new studies would get other pseudonyms for the same"
        images = "the backup has no images: every study is gone until its images come again"
        key += " patients. Copy patient.key, or set HILUM_PATIENT_KEY"
        return [*([] if self.node.is_same_key else [key]), *([] if self.node.has_images else [images])]

    def as_record(self) -> dict[str, JsonValue]:
        """The record for `--json`: the fields of the node, and how its audit stands."""
        audit_record = record_schema.plain(self.audit)
        return {
            "schema": "hilum.restored",
            "version": 1,
            **record_schema.plain_fields(self.node),
            "audit": audit_record,
        }

    def __repr__(self) -> str:
        return "\n".join([f"{self.node.folder}: {self.node.files} files", repr(self.audit), *self.notes])


@keywords.takes(RestoreOptions)
def restore(options: RestoreOptions) -> VerifiedNode:
    """Make a node of a backup, and verify its audit.

    Raises IntegrityError for a backup that is not whole, before anything is written, UsageError for a folder or a
    database that holds something.
    """
    serve.refuse_missing_extra("restore")
    node = node_backup.restore_node(Path(options.file), Path(options.folder), options.database)
    return VerifiedNode(node, audit.verify_audit(node.folder, head=node.head))

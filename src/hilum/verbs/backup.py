"""`backup`: a node as one tar."""

from __future__ import annotations

from pathlib import Path

from hilum import keywords
from hilum.options.node import BackupOptions
from hilum.service import node_backup
from hilum.service.node_backup import NodeBackup
from hilum.verbs import serve


@keywords.takes(BackupOptions)
def backup(options: BackupOptions) -> NodeBackup:
    """Write a node into one tar, which holds no key of patients' pseudonyms; the node may be running.

    Raises UsageError for a folder without a node or a file that is there already, ResourceError for a full disk.
    """
    serve.refuse_missing_extra("backup")
    with_images = not options.without_images
    return node_backup.write_backup(
        Path(options.node), Path(options.out), with_images=with_images, overwrite=options.overwrite
    )

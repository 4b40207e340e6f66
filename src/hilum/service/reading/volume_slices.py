"""The images of series of a node, for people who look at their slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import dicom_reading
from hilum.service.objects import object_store
from hilum.service.reading.sliced_volumes import SlicedVolume, VolumeCache
from hilum.service.records.record_database import Database
from hilum.service.records.study_index import StudyIndex
from hilum.service.records.tables import SERIES_ROWS, STUDIES
from hilum.values import Image


@dataclass(frozen=True, eq=False)
class SeriesImages:
    """The images of series of a node. folder: of the node"""

    database: Database
    folder: Path
    volumes: VolumeCache

    def rows(self, uid: str, study: str | None = None) -> Sequence[Row[*tuple[Any, ...]]]:
        """A row for each study that has a series of this UID, with the study's revision. study: key of the only one"""
        both = SERIES_ROWS.join(STUDIES, SERIES_ROWS.c.study == STUDIES.c.study)
        query = (
            select(
                SERIES_ROWS.c.study,
                SERIES_ROWS.c.series,
                SERIES_ROWS.c.uid,
                SERIES_ROWS.c.instances,
                STUDIES.c.revision,
            )
            .select_from(both)
            .where(SERIES_ROWS.c.series == object_store.uid_key(uid))
        )
        return self.database.rows(query if study is None else query.where(SERIES_ROWS.c.study == study))

    def images_of_row(self, row: Row[*tuple[Any, ...]]) -> list[SlicedVolume]:
        """The images of a series: one volume, picture or clip, or of several views or grids each its own.

        row: as `rows` gives it. Raises FormatError or GeometryError for a series that cannot be read.
        """
        key = (row.study, row.series, row.revision, row.instances)  # objects that come, go or change make another one
        return self.volumes.load(key, partial(self._read_images, row.study, row.series))

    def _read_images(self, study: str, of_series: str) -> list[Image]:
        paths = [self.folder / one.path for one in StudyIndex(self.database).objects_of(study, of_series)]
        images = dicom_reading.read_series(paths)
        return [images[name] for name in images]


def named_image(volumes: Sequence[SlicedVolume], number: int) -> str | None:
    """The SOP Instance UID of one of several images; None of the only one, which needs no name."""
    return None if len(volumes) == 1 else header_reading.instance_of(volumes[number].image)

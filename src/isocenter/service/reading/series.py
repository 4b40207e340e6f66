"""Images of a series, as they are kept for those who look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from isocenter.files.dicom import read_header, read_series, text
from isocenter.service.objects.store import key_of
from isocenter.service.reading.volumes import Volume, Volumes
from isocenter.service.records.database import Database
from isocenter.service.records.index import Index
from isocenter.service.records.tables import series, studies
from isocenter.values import Image


@dataclass(frozen=True, eq=False)
class SeriesImages:
    """The images of series of a node. folder: of the node"""

    database: Database
    folder: Path
    volumes: Volumes

    def rows(self, uid: str, study: str | None = None) -> Sequence[Row[*tuple[Any, ...]]]:
        """A row for each study that has a series of this UID, with the study's revision. study: key of the only one"""
        both = series.join(studies, series.c.study == studies.c.study)
        columns = (series.c.study, series.c.series, series.c.uid, series.c.instances, studies.c.revision)
        wanted = select(*columns).select_from(both).where(series.c.series == key_of(uid))
        with self.database.read() as connection:
            return connection.execute(wanted if study is None else wanted.where(series.c.study == study)).all()

    def of(self, row: Row[*tuple[Any, ...]]) -> list[Volume]:
        """The images of a series: one volume, picture or clip, or of several views or grids each its own.

        row: as `rows` gives it. Raises FormatError or GeometryError for a series that cannot be read.
        """
        key = (row.study, row.series, row.revision, row.instances)  # objects that come, go or change make another one
        return self.volumes.of(key, partial(self._read, row.study, row.series))

    def _read(self, study: str, of_series: str) -> list[Image]:
        paths = [self.folder / one.path for one in Index(self.database).objects_of(study, of_series)]
        images = read_series(paths)
        return [images[name] for name in images]


def named_image(volumes: Sequence[Volume], number: int) -> str | None:
    """The SOP Instance UID of one of several images; None of the only one, which needs no name."""
    return None if len(volumes) == 1 else instance_of(volumes[number].image)


def instance_of(image: Image) -> str:
    """The SOP Instance UID of the first object of an image."""
    return text(read_header(Path(image.source.paths[0])).dataset, "SOPInstanceUID") if image.source else ""

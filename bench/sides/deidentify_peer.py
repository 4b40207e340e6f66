"""One of two other programs on a folder of DICOM files: python deidentify_peer.py NAME FOLDER OUT."""

from __future__ import annotations

import sys
from pathlib import Path


def by_anonymizer(source: Path, target: Path) -> None:
    from dicomanonymizer import anonymize_dicom_file

    anonymize_dicom_file(str(source), str(target))


def by_deid(source: Path, target: Path) -> None:
    from deid.config import DeidRecipe
    from deid.dicom import get_identifiers, replace_identifiers

    files = [str(source)]
    [cleaned] = replace_identifiers(
        dicom_files=files, deid=DeidRecipe(), ids=get_identifiers(files), save=False, remove_private=True
    )
    cleaned.save_as(str(target))


def main() -> None:
    name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True)
    for source in sorted(folder.rglob("*.dcm")):
        try:
            {"dicom-anonymizer": by_anonymizer, "deid": by_deid}[name](source, out / source.name)
        except Exception as error:
            print(f"{source.name}: {type(error).__name__}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""From a complete study to an answer that is stored in Orthanc: seconds, and how many are the model's own.

    hilum demo --minutes 7 --out demo && hilum package demo --out hippocampus
    python bench/node_time.py --model hippocampus --record

Cases of the hippocampus become DICOM series of MR; each is sent by DCMTK's storescu once the one before is answered.
The node's records give the times: of completeness, of the steps of the job, and of the peer's success.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from beside import arguments, record
from sqlalchemy import select

import hilum
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.records import record_database, tables

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from service.conftest import orthanc_running

ASKED_S, ASKED_OUTSIDE_S = 5.0, 1.0
STEPS = ("load", "read", "predict", "write")


def main() -> None:
    parser = arguments(__doc__, repeats=10)
    parser.add_argument("--model", type=Path, required=True, help="a package of a hippocampus model")
    given = parser.parse_args()
    cases = sorted((given.data / "hippocampus" / "images").glob("*.nii.gz"))[: 2 if given.small else given.repeats]
    with tempfile.TemporaryDirectory() as folder, orthanc_running(Path(folder)) as orthanc:
        rows = answered(Path(folder), given.model.absolute(), cases, orthanc)
    median = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    largest = {name: max(row[name] for row in rows) for name in rows[0]}
    heads = ["", *median]
    lines = [heads, ["---"] * len(heads)]
    lines += [
        [name, *(f"{value:.2f}" for value in one.values())] for name, one in (("median", median), ("largest", largest))
    ]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text += (
        f"\n\nSeconds of {len(rows)} cases. Asked: {ASKED_S:g} in all, {ASKED_OUTSIDE_S:g} of them outside `predict`."
    )
    print(text)
    if given.record:
        record("node_time", "From a complete study to an answer in the PACS", text, {"rows": rows})


def answered(folder: Path, model: Path, cases: list[Path], orthanc) -> list[dict[str, float]]:
    """A row of seconds for each case."""
    config = folder / "node.toml"
    config.write_text(
        f"""
        [dicom]
        port = 0
        [http]
        port = 0
        [node]
        min_free_gb = 0
        [study]
        complete_after_s = 1
        [[peers]]
        name = "pacs"
        ae_title = "ORTHANC"
        host = "127.0.0.1"
        port = {orthanc.port}
        commit = false
        [models.hippocampus]
        path = "{model}"
        [[rules]]
        name = "hippocampus"
        model = "hippocampus"
        send = ["pacs"]
        """
    )
    with hilum.serve(config=config, folder=folder / "node") as node:
        database = record_database.open_database(node.settings.database_url)
        for number, path in enumerate(cases):
            image = replace(hilum.read(path), modality="MR")
            series_writing.write_series(image, SeriesNames(f"p{number}", "study", "series"), folder / f"case-{number}")
            port = str(node.settings.dicom.port)
            command = [
                "storescu",
                "-aec",
                "HILUM",
                "127.0.0.1",
                port,
                *map(str, (folder / f"case-{number}").iterdir()),
            ]
            subprocess.run(command, check=True)
            until = time.monotonic() + 120
            while len(found := _sent(database)) <= number:
                assert time.monotonic() < until, "no answer came"
                time.sleep(0.1)
        database.close()
    return found


def _sent(database) -> list[dict[str, float]]:
    joined = tables.DELIVERIES.join(tables.JOBS, tables.JOBS.c.job == tables.DELIVERIES.c.job).join(
        tables.STUDIES, tables.STUDIES.c.study == tables.JOBS.c.study
    )
    wanted = select(
        tables.STUDIES.c.complete_at, tables.DELIVERIES.c.sent_at, tables.JOBS.c.seconds, tables.JOBS.c.started_at
    )
    with database.read() as connection:
        rows = connection.execute(
            wanted.select_from(joined).where(tables.DELIVERIES.c.state == "sent").order_by(tables.DELIVERIES.c.delivery)
        ).all()
    return [
        {
            "all": row.sent_at - row.complete_at,
            "outside predict": row.sent_at - row.complete_at - row.seconds["predict"],
            "until claimed": row.started_at - row.complete_at,
            **{step: row.seconds[step] for step in STEPS},
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()

"""`doctor`: what this machine lacks for the work, and how to get it, in less than three seconds and without torch."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from typing_extensions import TypedDict

import hilum
from hilum import errors, installation, keywords, work_state
from hilum.documents import page_printing
from hilum.errors import HilumError, ResourceError
from hilum.files.storage import atomic, cache
from hilum.lazy import packaging_requirements
from hilum.lazy import pandas as pd
from hilum.options.machine import DoctorOptions
from hilum.runtime import hardware
from hilum.runtime.hardware import MachineRecord
from hilum.service import default_ports
from hilum.service.records import database_programs
from hilum.values.record_schema import RecordHead, RecordSchema

State = Literal["fine", "lacking", "fatal", "unknown"]
FINE: State = "fine"
LACKING: State = "lacking"
FATAL: State = "fatal"
UNKNOWN: State = "unknown"
# s from the start of the command to the last answer of a check; the rest of three is for Python itself.
LIMIT_S = 2.4
# s for a program that states what is installed.
PROGRAM_S = 1.5
GIB = 2**30
# A volume of 4 GiB is trained on and predicted in so much (docs/benchmarks.md#beyond-memory).
LEAST_MEMORY_GIB = 2.0
# The last and the best checkpoint of a U-Net of 30 million parameters: weights, their mean and two moments in float32.
LEAST_DISK_GIB = 1.0
GPU_DRIVER = Path("/proc/driver/nvidia/version")
PCI_DEVICES = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAY = "0x10de", "0x03"  # the vendor, and the class of devices, of PCI
# Languages whose letters the font that comes with matplotlib lacks.
LETTERS = {"zh-cn": "Chinese", "ja": "Japanese", "ko": "Korean"}
# A program that the tests ask for, and the package that has it, in `tests/system_packages.sh`.
OF_TESTS = re.compile(r"command -v (\S+) .*missing=\"\$missing (\S+)\"")
VERDICTS = {
    True: "Nothing keeps this machine from the main job: check, plan, train, evaluate, predict",
    False: "This machine cannot do the main job",
}


class MachineRow(TypedDict):
    """One thing that was looked at."""

    what: str
    state: State
    found: str
    opens: str
    remedy: str


class DoctorRecord(RecordHead):
    """Whether the main job can run, what was looked at, and the machine as `environment.json` has it."""

    is_ready: bool
    rows: list[MachineRow]
    environment: MachineRecord


DOCTOR_SCHEMA = RecordSchema("hilum.doctor", DoctorRecord)


@dataclass(frozen=True)
class MachineFinding:
    """One thing that was looked at.

    state:  "lacking" where only something beside the main job needs it, "fatal" where the main job does, "unknown"
            where it could not be looked at
    found:  in words
    opens:  what needs it
    remedy: how to get it
    """

    what: str
    state: State
    found: str
    opens: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        opens = f"; it opens {self.opens}" if self.opens else ""
        remedy = f". {self.remedy}" if self.remedy else ""
        return f"{self.state:8} {self.what}: {self.found}{opens}{remedy}"


@dataclass(frozen=True)
class MachineExamination:
    """What this machine has and lacks; the main job is check, plan, train, evaluate and predict."""

    findings: tuple[MachineFinding, ...]

    @property
    def obstacles(self) -> tuple[MachineFinding, ...]:
        """What the main job lacks."""
        return tuple(one for one in self.findings if one.state == FATAL)

    @property
    def is_ready(self) -> bool:
        """Whether the main job can run."""
        return not self.obstacles

    @property
    def rows(self) -> list[MachineRow]:
        """One record a finding."""
        return [MachineRow(**asdict(finding)) for finding in self.findings]  # type: ignore[typeddict-item]  # its fields

    @property
    def table(self) -> pd.DataFrame:
        """The same rows as a DataFrame."""
        return pd.DataFrame(self.rows)

    def as_record(self) -> DoctorRecord:
        """The record for `--json`."""
        return DOCTOR_SCHEMA.record_of(self, environment=hardware.machine_environment())

    def __str__(self) -> str:
        verdict = VERDICTS[self.is_ready]
        lacking = sum(finding.state == LACKING for finding in self.findings)
        unknown = sum(finding.state == UNKNOWN for finding in self.findings)
        if lacking:
            verdict += f"; {errors.count_phrase(lacking, 'further thing')} to get"
        if unknown:
            verdict += f"; {errors.count_phrase(unknown, 'thing')} could not be looked at"
        return "\n".join([f"{verdict}.", *map(str, self.findings)])

    __repr__ = __str__


@keywords.takes(DoctorOptions)
def doctor(options: DoctorOptions) -> MachineExamination:
    """What this machine lacks, a line each with the way to get it: for the main job, the extras, a node."""
    return MachineExamination(tuple(run_checks(CHECKS, work_state.command_start() + LIMIT_S)))


Check = Callable[[], Iterator[MachineFinding]]


def run_checks(checks: Mapping[str, Check], until: float) -> Iterator[MachineFinding]:
    """The findings of all checks, in their order; of one that fails, or takes longer, a finding that says so.

    until: time.monotonic() of the last answer that is waited for
    """
    findings_by_check: dict[str, list[MachineFinding]] = {}

    def run(name: str, check: Check) -> None:
        try:
            findings_by_check[name] = list(check())
        except HilumError as error:
            findings_by_check[name] = [
                MachineFinding(name, UNKNOWN, f"{error.where}: {error.problem}", remedy=error.remedy)
            ]
        except Exception as error:  # whatever it is, the other checks say what they found
            problem = f"could not be looked at ({errors.describe_fault(error)}: {errors.describe_cause(error)})"
            findings_by_check[name] = [MachineFinding(name, UNKNOWN, problem)]

    # A dead network disk, or a driver that hangs, holds its own thread alone, which ends with the process.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = "gave no answer in time"
    for name in checks:
        yield from findings_by_check.get(name, [MachineFinding(name, UNKNOWN, late)])


def look_at_python() -> Iterator[MachineFinding]:
    """The version of Python, against those that the installation states."""
    stated = metadata.metadata(installation.DISTRIBUTION)
    version = platform.python_version()
    needed = packaging_requirements.Requirement(f"python{stated['Requires-Python']}").specifier
    tested = re.findall(r"Python :: (\d+)\.(\d+)", "\n".join(stated.get_all("Classifier") or ()))
    newest = max((int(major), int(minor)) for major, minor in tested)
    system = f"{version}, {platform.system()} {platform.machine()}"
    if not needed.contains(version):
        remedy = f"Install Python {newest[0]}.{newest[1]}"
        yield MachineFinding("Python", FATAL, f"{version}, where {needed} is needed", remedy=remedy)
    elif tuple(map(int, platform.python_version_tuple()[:2])) > newest:
        yield MachineFinding("Python", FINE, f"{system}; the newest that is tested is {newest[0]}.{newest[1]}")
    else:
        yield MachineFinding("Python", FINE, system)


def look_at_packages() -> Iterator[MachineFinding]:
    """The packages of the core."""
    missing = installation.missing_packages()
    if missing:
        found = f"not installed: {errors.list_phrase(missing)}"
        yield MachineFinding("packages", FATAL, found, remedy=installation.install_line())
        return
    count = len(installation.needed_packages())
    versions = hardware.package_versions(("hilum", "torch"))
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield MachineFinding("packages", FINE, f"the {count} of the core are installed: {shown}")


def look_at_processor() -> Iterator[MachineFinding]:
    """The cores that this process may use."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield MachineFinding("processor", FINE, f"{usable} of {cores} cores, {hardware.processor_name()}")


def look_at_memory() -> Iterator[MachineFinding]:
    """The memory that this process may still take, of the machine or of its container."""
    free = hardware.available_host_memory() / GIB
    found = f"{free:.1f} of {psutil.virtual_memory().total / GIB:.1f} GiB are free"
    if free < LEAST_MEMORY_GIB:
        remedy = f"A small training takes {LEAST_MEMORY_GIB:g}: close other programs, or give the container more"
        yield MachineFinding("memory", FATAL, found, remedy=remedy)
    else:
        yield MachineFinding("memory", FINE, found)


def look_at_working_folder() -> Iterator[MachineFinding]:
    """The folder in which results lie where no --out is given."""
    yield _folder_finding("working folder", Path.cwd(), "Change to another folder, or give --out")


def look_at_cache() -> Iterator[MachineFinding]:
    """The folder for what can be made again."""
    yield _folder_finding("cache", cache.cache_folder(), f"Set {cache.VARIABLE} to another folder")


def look_at_temporary_folder() -> Iterator[MachineFinding]:
    """The system's folder for temporary files."""
    yield _folder_finding("temporary folder", Path(tempfile.gettempdir()), "Set TMPDIR to another folder")


def _folder_finding(what: str, folder: Path, remedy: str) -> MachineFinding:
    """Whether a folder, or the one in which it will be made, can be written to and has room."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"hilum")
    except OSError as error:
        return MachineFinding(what, FATAL, f"{folder} {atomic.unwritable_error(error, there).problem}", remedy=remedy)
    free = shutil.disk_usage(there).free / GIB
    found = f"{folder} can be written to, {free:.1f} GiB are free"
    if free < LEAST_DISK_GIB:
        return MachineFinding(what, FATAL, found, remedy=f"A run takes {LEAST_DISK_GIB:g}: free some space. {remedy}")
    return MachineFinding(what, FINE, found)


def look_at_gpus() -> Iterator[MachineFinding]:
    """GPUs and their driver, as NVIDIA's program, the system and the build of torch state them."""
    program = shutil.which("nvidia-smi")
    opens = "training and prediction on it"
    if program is not None:
        yield _listed_gpus(program, opens)
    elif GPU_DRIVER.is_file():
        driver = GPU_DRIVER.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        yield MachineFinding("GPU", FINE, f"{driver.strip()}; which GPUs there are says nvidia-smi, which is absent")
    elif _has_nvidia_device():
        found = "an NVIDIA GPU without its driver"
        yield MachineFinding("GPU", LACKING, found, opens, "Install NVIDIA's driver, and restart the machine")
    elif (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        yield MachineFinding("GPU", FINE, "Apple's own (--device mps)")
    else:
        yield MachineFinding("GPU", FINE, "none was found: networks compute on the processor")


def _listed_gpus(program: str, opens: str) -> MachineFinding:
    """What nvidia-smi lists, and whether torch is built for it."""
    command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        found = f"nvidia-smi gave no answer in {PROGRAM_S:g} s"
        return MachineFinding("GPU", UNKNOWN, found, opens, "Restart the machine, or install NVIDIA's driver anew")
    listed = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not listed:
        words = next(iter([*listed, *done.stderr.splitlines()]), f"ended with {done.returncode}")
        remedy = "Restart the machine, or install NVIDIA's driver anew"
        return MachineFinding("GPU", LACKING, f"nvidia-smi: {words}", opens, remedy)
    found = f"{'; '.join(listed)} (name, memory, driver)"
    version = hardware.package_versions(("torch",))["torch"]
    if version.endswith("+cpu"):
        remedy = "Install a build of the same torch with CUDA"
        return MachineFinding("GPU", LACKING, f"{found}, but torch {version} is built without CUDA", opens, remedy)
    return MachineFinding("GPU", FINE, found)


def _has_nvidia_device() -> bool:
    """Whether the bus has a display device of NVIDIA."""
    for vendor in PCI_DEVICES.glob("*/vendor"):
        kind = vendor.with_name("class")
        if vendor.read_text().strip() == NVIDIA and kind.read_text().startswith(DISPLAY):
            return True
    return False


def look_at_clock() -> Iterator[MachineFinding]:
    """The date, which is no earlier than this release."""
    now = datetime.now(UTC)
    found = f"{now:%Y-%m-%d %H:%M} UTC"
    if now.date() < date.fromisoformat(hilum.__date__):
        opens = "right dates of reports, audit and certificates"
        found = f"{found}, before this release of {hilum.__date__}"
        yield MachineFinding("clock", LACKING, found, opens, "Set the clock: timedatectl set-ntp true")
    else:
        yield MachineFinding("clock", FINE, found)


def look_at_extras() -> Iterator[MachineFinding]:
    """Every extra: whether what it needs is installed, and what it opens."""
    for extra, opens in installation.EXTRAS.items():
        missing = installation.missing_packages(extra)
        if missing:
            found = f"{errors.list_phrase(missing, 2)} not installed"
            yield MachineFinding(f"extra {extra}", LACKING, found, opens, installation.install_line(extra))
        else:
            yield MachineFinding(f"extra {extra}", FINE, "installed", opens)


def look_at_browser() -> Iterator[MachineFinding]:
    """The browser that prints documents."""
    opens = "document with --format pdf"
    try:
        yield MachineFinding("Chromium", FINE, page_printing.browser_path(), opens)
    except ResourceError as error:
        yield MachineFinding("Chromium", LACKING, "not found", opens, error.remedy)


def look_at_compiler() -> Iterator[MachineFinding]:
    """The C++ compiler that torch asks for."""
    opens = "compiled steps of a training, and predict with --backend compiled"
    path = hardware.compiler_path()
    if path is None:
        yield MachineFinding("C++ compiler", LACKING, "not found", opens, "Install g++")
    else:
        yield MachineFinding("C++ compiler", FINE, path, opens)


def look_at_database_programs() -> Iterator[MachineFinding]:
    """The programs that copy a node's database in PostgreSQL; asked where the extra of a node is installed."""
    if installation.missing_packages("service"):
        return
    opens = "backup and restore of a node on PostgreSQL"
    missing = [name for name in ("pg_dump", "pg_restore") if database_programs.program_path(name) is None]
    if missing:
        found = f"{' and '.join(missing)} not found"
        yield MachineFinding("PostgreSQL", LACKING, found, opens, "Install postgresql-client")
    else:
        yield MachineFinding("PostgreSQL", FINE, "pg_dump and pg_restore are found", opens)


def look_at_dcmtk() -> Iterator[MachineFinding]:
    """DCMTK, by whose program pages send studies to a node."""
    opens = "sending a study to a node by hand"
    path = shutil.which("storescu")
    if path is None:
        yield MachineFinding("DCMTK", LACKING, "storescu not found", opens, "Install dcmtk")
    else:
        yield MachineFinding("DCMTK", FINE, path, opens)


def look_at_fonts() -> Iterator[MachineFinding]:
    """Fonts for letters that matplotlib's own lacks, as fontconfig lists them."""
    opens = "names in Chinese, Japanese and Korean on result pages"
    program = shutil.which("fc-list")
    if program is None:
        found = "fc-list, which lists them, is not found"
        yield MachineFinding("fonts", UNKNOWN, found, opens, "Install fontconfig and fonts-noto-cjk")
        return
    missing = []
    for code, language in LETTERS.items():
        command = [program, "--quiet", f":lang={code}"]
        if subprocess.run(command, timeout=PROGRAM_S, check=False, capture_output=True).returncode:  # noqa: S603
            missing.append(language)
    if missing:
        yield MachineFinding(
            "fonts", LACKING, f"none has the letters of {errors.list_phrase(missing)}", opens, "Install fonts-noto-cjk"
        )
    else:
        yield MachineFinding("fonts", FINE, "found", opens)


def look_at_ports() -> Iterator[MachineFinding]:
    """The ports at which a node listens where its file names no others."""
    yield port_finding({"dicom": default_ports.DICOM, "http": default_ports.HTTP})


def port_finding(ports: Mapping[str, int]) -> MachineFinding:
    """Whether these ports on loopback are free; ports: by the section of node.toml that states them."""
    taken = {}
    for section, port in ports.items():
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                taken[section] = f"{port}: {error.strerror}"
    if taken:
        remedy = f"Stop what listens there, or set {' and '.join(f'{section}.port' for section in taken)} in node.toml"
        return MachineFinding("ports", LACKING, "; ".join(taken.values()), "a second node", remedy)
    return MachineFinding("ports", FINE, f"{' and '.join(map(str, ports.values()))} are free", "serve")


def look_at_programs_of_tests() -> Iterator[MachineFinding]:
    """The programs that tests of a checkout talk to."""
    script = Path(hilum.__file__).parents[2] / "tests" / "system_packages.sh"
    if not script.is_file():
        return
    asked = OF_TESTS.findall(script.read_text(encoding="utf-8"))
    missing = [package for program, package in asked if shutil.which(program) is None]
    opens = "the tests that need them"
    if missing:
        found = f"{errors.list_phrase(missing)} not found"
        yield MachineFinding("programs of tests", LACKING, found, opens, "As root: make system")
    else:
        yield MachineFinding("programs of tests", FINE, f"{len(asked)} are found", opens)


# In the order of their lines: first what the main job needs.
CHECKS: Mapping[str, Check] = {
    "Python": look_at_python,
    "packages": look_at_packages,
    "processor": look_at_processor,
    "memory": look_at_memory,
    "working folder": look_at_working_folder,
    "cache": look_at_cache,
    "temporary folder": look_at_temporary_folder,
    "GPU": look_at_gpus,
    "clock": look_at_clock,
    "extras": look_at_extras,
    "Chromium": look_at_browser,
    "C++ compiler": look_at_compiler,
    "PostgreSQL": look_at_database_programs,
    "DCMTK": look_at_dcmtk,
    "fonts": look_at_fonts,
    "ports": look_at_ports,
    "programs of tests": look_at_programs_of_tests,
}

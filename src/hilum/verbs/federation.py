"""`federation`: a training over sites on machines of their own."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path

from hilum import federation, keywords, work_state
from hilum.errors import UsageError
from hilum.federation import party_kits
from hilum.federation.exchanges import SERVER
from hilum.federation.parties import CarriedJob, PartyProcesses
from hilum.federation.party_kits import Kit
from hilum.files.storage import atomic, file_lock
from hilum.options.training import JoinFederationOptions, ProvisionFederationOptions, ServeFederationOptions
from hilum.reading import ReadingOptions, verb_results
from hilum.verbs import federate
from hilum.verbs.train import Run


@keywords.takes(ProvisionFederationOptions)
def provision_federation(options: ProvisionFederationOptions) -> Path:
    """Make the kits of a new federation; each holds a private key, and goes to its party alone.

    Raises UsageError for a file that describes no federation.
    """
    party_kits.refuse_missing_extra("federation provision")
    verb_results.refuse_missing(Path(options.federation))
    described, out = party_kits.read_federation(Path(options.federation)), Path(options.out)
    verb_results.refuse_taken(out, options.overwrite, (f"{SERVER}/{party_kits.KIT}",))
    with atomic.write_whole(out, overwrite=options.overwrite) as partial:
        federation.nvflare_carrier.provision_kits(described, partial)
    return out


@keywords.takes(ServeFederationOptions)
def serve_federation(options: ServeFederationOptions) -> Run | Path:
    """Run one job over the sites that join, as the server of their federation.

    export: write the job in NVFlare's layout in place of running it
    Raises what `federate` raises; UsageError for a kit of another party and a port that is taken.
    """
    began, kit = work_state.command_start(), _own_kit(options.kit, is_server=True)
    record = federate.new_record(options, "mtls", len(kit.sites))
    request = federate.job_request(options, ReadingOptions())
    if options.export is not None:
        verb_results.refuse_taken(folder := Path(options.export), options.overwrite, ("meta.json",))
        with atomic.write_whole(folder, overwrite=options.overwrite) as partial:
            party_kits.write_job(partial, request, record)
        return folder
    if (options.out is None) == (options.resume is None):
        raise UsageError("give a folder for a job, or a job to resume", "federation serve", "Give --out JOB")
    out = Path(options.resume or options.out or "")
    if options.resume is not None:
        record = federate.read_resumable(out, options, ServeFederationOptions(options.kit, resume=options.resume))
    else:
        verb_results.refuse_taken(out, options.overwrite, federate.MARKS)
    kit = party_kits.read_kit(kit.folder, out=str(out.absolute()), began=began)
    job = CarriedJob(kit, (), request, record, PartyProcesses(kit.folder))
    with file_lock.hold_lock(out):
        with nullcontext() if options.resume is not None else federate.in_place_of(out):
            job.run()
        return federate.read_run(out, began)


@keywords.takes(JoinFederationOptions)
def join_federation(options: JoinFederationOptions) -> Path:
    """Take part in the one job of a federation with the site's own images, until the server ends.

    min_count: fewest cases behind a fact that leaves the site, whatever the server asks for
    private: keeps split, prepared cases, checkpoints and scores, which never leave; it is returned
    Raises UsageError for a kit of another party and where nobody agrees to a plan; else the site's own error.
    """
    kit = _own_kit(options.kit, is_server=False)
    verb_results.refuse_missing(data := Path(options.data).absolute())
    private = Path(options.private or kit.folder / "private").absolute()
    if kit.own.get("private") != str(private):  # an older one of the same kit is gone on with, or replaced
        verb_results.refuse_taken(private, overwrite=False)
    own = {"data": str(data), "private": str(private), "reading": options.reading.chosen_options}
    kit = party_kits.read_kit(kit.folder, asks=not options.yes, min_count=options.min_count, **own)
    processes = PartyProcesses(kit.folder)
    with file_lock.hold_lock(kit.folder):
        try:
            kit.write()
            processes.start(kit)
            while processes.is_running(kit.party):
                party_kits.ask_person(kit, options.ask or (lambda _: False))
                processes.look()
                time.sleep(party_kits.LOOK)
        finally:
            processes.end()
    if (end := party_kits.read_end(kit)) is not None and end.error is not None:
        raise end.error
    return private


def _own_kit(folder: str | Path, *, is_server: bool) -> Kit:
    """The kit of this party; UsageError for that of another one."""
    party_kits.refuse_missing_extra("federation")
    kit = party_kits.read_kit(Path(folder))
    if (kit.party == SERVER) != is_server:
        remedy = "Give the server's" if is_server else "Give that of your site"
        raise UsageError(f"is the kit of {kit.party}", str(folder), remedy)
    return kit

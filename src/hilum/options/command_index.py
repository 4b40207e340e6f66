"""Every command: its words, its options, the verb behind it, and what the doors beside the command line need of it.

The command line, the forms of the page and the tools for agents are made from these alone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from hilum import keywords, plugins
from hilum.errors import UsageError
from hilum.reading import reading_options
from hilum.values import Setting

# Values of a command's options by name, each as Python, JSON or the command line has it.
CommandValues = Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """One command.

    words:    on the command line: "plan", or "study size" of a group
    place:    "module:class" of its options, a module of this room; it is imported when they are asked for
    verb:     of Python, by default that of the same name
    named_by: the option by which a folder of results is called, by default the first
    is_json:  whether the result can be printed as JSON
    forms:    {property of the result: switch that prints it in place of the result}
    is_long:  whether it takes so long that it waits for others of its kind
    reads:    whether it writes nothing
    seals:    whether it changes for good what a person has made
    is_own:   whether only a person at a terminal may give it: what starts or changes a node, or empties a cache
    """

    words: str
    place: str
    verb: str = ""
    named_by: str = ""
    is_json: bool = True
    forms: Mapping[str, Setting] = field(default_factory=dict)
    is_long: bool = False
    reads: bool = False
    seals: bool = False
    is_own: bool = False

    @property
    def name(self) -> str:
        """Its name as one word: study_size."""
        return self.words.replace(" ", "_").replace("-", "_")

    @property
    def options(self) -> type:
        """The options of the verb, whose fields are the flags."""
        return cast("type", plugins.load_target(f"{__package__}.{self.place}"))

    @property
    def keywords(self) -> Mapping[str, Setting]:
        """The options that have a flag, by name, and the switches of the forms."""
        options = {name: one for name, one in keywords.keywords_of(self.options).items() if one.text}
        forms = {
            name: replace(one, name=one.name or name, attribute=name, hint=bool, default=False)
            for name, one in self.forms.items()
        }
        return options | forms

    @property
    def text(self) -> str:
        """The sentence of the options."""
        return (self.options.__doc__ or "").partition("\n")[0]

    def fill(self, text: str) -> str:
        """A text in which the command stands for its own name."""
        return text.replace("<verb>", self.words.split()[0])

    def default_out(self, values: CommandValues) -> Path | None:
        """The path of results where none is given; None where there is nothing to call it by, or nothing is written."""
        pattern = self.keywords["out"].path if "out" in self.keywords else ""
        source = values.get(self.named_by) or values.get(next(iter(self.keywords)))
        if not pattern or source in (None, [], ()):
            return None
        name = name_without_suffixes(Path(source[0] if isinstance(source, list) else source))
        return Path(self.fill(pattern).replace("<name>", name))

    def arguments(self, values: CommandValues) -> list[str]:
        """What follows `hilum` on the command line, for values as Python or JSON has them.

        Raises UsageError for an option that the command does not have, and for one that it lacks.
        """
        known = self.keywords
        for name in values:
            if name not in known:
                raise UsageError("is no option", f"{self.words}: {name}", f"Its options are {', '.join(known)}")
        given = {name: one for name, one in values.items() if one not in (None, [], (), {}, "")}
        for name, keyword in known.items():
            if keyword.is_required and name not in given and not keyword.path:
                raise UsageError("is missing", f"{self.words}: {name}", f"Give {keyword.command_line_name}")
            if name in given:
                keyword.refuse_beyond_limits(given[name])
        flags, places = list[str](), list[str]()
        for name, keyword in known.items():
            texts = list(_texts(keyword, given[name])) if name in given else []
            if any("\0" in text for text in texts):
                raise UsageError("holds a byte that no command line can", f"{self.words}: {name}", "Leave it out")
            if keyword.command_line_name == keyword.metavar:
                places += texts
            elif name in given:
                flags += _flags(keyword, given[name], texts)
        is_like_a_flag = any(word.startswith("-") for word in places)
        return [*self.words.split(), *flags, *(["--"] if is_like_a_flag else []), *places]

    def json_arguments(self, values: CommandValues) -> list[str]:
        """The same, for a result as JSON where the command has one."""
        words, count = self.arguments(values), len(self.words.split())
        return [*words[:count], *(["--json"] if self.is_json else []), *words[count:]]

    def shell_line(self, values: CommandValues) -> str:
        """The command as a person types it."""
        return f"hilum {shlex.join(self.arguments(values))}"

    def python_values(self, values: CommandValues) -> CommandValues:
        """The keywords of a call in Python, without empty ones. Raises UsageError as reading them does."""
        given = {name: one for name, one in values.items() if one not in (None, "", [], {})}
        return {name: _python_value(self.keywords[name], one) for name, one in given.items()}

    def python_call(self, values: CommandValues) -> str:
        """The same as a call in Python."""
        given = [(one, values[name]) for name, one in self.keywords.items() if values.get(name) not in (None, [], "")]
        texts = [
            f"{'' if keyword.is_place else f'{keyword.attribute}='}{_python_value(keyword, value)!r}"
            for keyword, value in given
            if value is not False or keyword.default is None
        ]
        return f"hilum.{self.verb or self.words}({', '.join(texts)})"


def _python_value(keyword: Setting, value: Any) -> Any:
    """The value that a call in Python takes for what a person typed."""
    if keyword.read is None or isinstance(value, Mapping) or (isinstance(value, list) and not keyword.repeats):
        return value
    return keyword.read([value] if keyword.repeats and isinstance(value, str) else value)


def _texts(keyword: Setting, value: Any) -> Iterator[str]:
    """The words in which a value is typed; a switch has none."""
    match value:
        case bool():
            return
        case Mapping() if keyword.repeats:
            yield from (f"{name}={_text(one)}" for name, one in value.items())
        case Mapping():
            yield reading_options.labels_text(value) or ""
        case list() | tuple() if keyword.repeats or keyword.values > 1:
            yield from (_text(one) for one in value)
        case list() | tuple():
            yield ",".join(map(_text, value))
        case _:
            yield _text(value)


def _text(value: Any) -> str:
    """One value as it is typed: a list within a list by colons, as in sensitivity:nodule:0.8."""
    match value:
        case str() | Path():
            return str(value)
        case list() | tuple() if all(isinstance(one, str | int | float) for one in value) and any(
            isinstance(one, str) for one in value
        ):
            return ":".join(map(str, value))
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return json.dumps(value)


def _flags(keyword: Setting, value: Any, texts: list[str]) -> list[str]:
    name = keyword.command_line_name
    if isinstance(value, bool):
        is_tri_state = keyword.default is None
        return [name] if value else [f"--no{name[1:]}"] if is_tri_state else []
    if keyword.values > 1:
        return [name, *texts]
    return [part for text in texts for part in ([f"{name}={text}"] if text.startswith("-") else [name, text])]


def name_without_suffixes(path: Path) -> str:
    """The name of a file or folder without its suffixes."""
    return path.resolve().name.split(".")[0] or "data"


def find_command(name: str) -> Command:
    """The command of a name such as study_size. UsageError for an unknown one."""
    for command in COMMANDS:
        if command.name == name:
            return command
    raise UsageError("there is no such command", name, f"Choose from {', '.join(one.name for one in COMMANDS)}")


PLAN_FORMS = {
    "explained": Setting("Print each decision with its reason and source.", name="--explain"),
    "all_decisions": Setting("Print also the decisions that have their defaults."),
}
ROUTE_FORMS = {"explained": Setting("Show every condition of every rule for every series.", name="--explain")}
# In the order in which help lists them, groups last.
COMMANDS = (
    Command("check", "training:CheckOptions"),
    Command("plan", "training:PlanOptions", forms=PLAN_FORMS),
    Command("train", "training:TrainOptions", is_long=True),
    Command("federate", "training:FederateOptions", named_by="out", is_own=True),
    Command("pretrain", "training:PretrainOptions", is_long=True),
    Command("evaluate", "training:EvaluateOptions", named_by="data", is_long=True),
    Command("compare", "training:CompareOptions"),
    Command("ensemble", "training:EnsembleOptions", is_long=True),
    Command("predict", "models:PredictOptions", named_by="inputs"),
    Command("explain", "models:ExplainOptions", named_by="inputs"),
    Command("embed", "models:EmbedOptions", named_by="inputs"),
    Command("package", "models:PackageOptions"),
    Command("compress", "models:CompressOptions", is_long=True),
    Command("calibrate", "models:CalibrateOptions"),
    Command("adopt", "models:AdoptOptions"),
    Command("convert", "images:ConvertOptions"),
    Command("enhance", "images:EnhanceOptions", named_by="inputs"),
    Command("deidentify", "images:DeidentifyOptions"),
    Command("synthesise", "images:SynthesiseOptions", named_by="run"),
    Command("reconstruct", "images:ReconstructOptions", named_by="inputs"),
    Command("register", "images:RegisterOptions", named_by="moving"),
    Command("register frames", "images:RegisterFramesOptions", "register_frames"),
    Command("view", "images:ViewOptions", is_json=False),
    Command("accept", "records:AcceptOptions", is_long=True, seals=True),
    Command("serve", "node:ServeOptions", is_json=False, is_own=True),
    Command("route", "node:RouteOptions", forms=ROUTE_FORMS, reads=True),
    Command("monitor", "node:MonitorOptions", is_long=True),
    Command("feedback", "node:FeedbackOptions"),
    Command("feedback import", "node:ImportLabelsOptions", "import_labels", is_own=True),
    Command("feedback next", "node:NextLabelsOptions", "next_labels"),
    Command("document", "records:DocumentOptions"),
    Command("document verify", "records:VerifyDocumentsOptions", "verify_documents", reads=True),
    Command("document trace", "records:TraceRequirementsOptions", "trace_requirements"),
    Command("networks", "models:NetworksOptions", "describe_networks", reads=True),
    Command("networks weights", "models:WeightsOptions", "describe_weights", reads=True),
    Command("cache", "training:CacheOptions", "describe_cache", reads=True, is_own=True),
    Command("demo", "training:DemoOptions", is_json=False, is_own=True),
    Command("studio", "doors:StudioOptions", is_json=False, is_own=True),
    Command("mcp", "doors:McpOptions", is_json=False, is_own=True),
    Command("info", "machine:InfoOptions", reads=True),
    Command("doctor", "machine:DoctorOptions", reads=True),
    Command("inventory", "node:InventoryOptions"),
    Command("backup", "node:BackupOptions"),
    Command("restore", "node:RestoreOptions", is_own=True),
    Command("audit verify", "node:VerifyAuditOptions", "verify_audit", reads=True),
    Command("audit export", "node:ExportAuditOptions", "export_audit", is_json=False),
    Command("change check", "records:CheckChangeOptions", "check_change", named_by="new"),
    Command("change propose", "records:ProposeChangeOptions", "propose_change"),
    Command("change shadow", "node:ShadowChangeOptions", "shadow_change", is_own=True),
    Command("change split", "node:SplitChangeOptions", "split_change", is_own=True),
    Command("change promote", "node:PromoteChangeOptions", "promote_change", is_own=True),
    Command("change rollback", "node:RollBackChangeOptions", "roll_back_change", is_own=True),
    Command("change status", "node:ChangeStatusOptions", "change_status", reads=True),
    Command(
        "federation provision",
        "training:ProvisionFederationOptions",
        "provision_federation",
        is_json=False,
        is_own=True,
    ),
    Command("federation serve", "training:ServeFederationOptions", "serve_federation", is_json=False, is_own=True),
    Command("federation join", "training:JoinFederationOptions", "join_federation", is_json=False, is_own=True),
    Command("study size", "records:StudySizeOptions", "study_size", reads=True),
    Command("study plan", "records:StudyPlanOptions", "study_plan"),
    Command("study lock", "records:StudyLockOptions", "study_lock", seals=True),
    Command("study randomise", "records:StudyRandomiseOptions", "study_randomise", seals=True),
    Command("study assign", "records:StudyAssignOptions", "study_assign", seals=True),
    Command("study analyse", "records:StudyAnalyseOptions", "study_analyse"),
    Command("study before-after", "records:StudyBeforeAfterOptions", "study_before_after"),
)
# Groups without a verb of their own.
GROUPS = {
    "audit": "Check and export the events of a node.",
    "change": "Change a model inside an agreed plan.",
    "federation": "Train over hospitals: kits, a server, sites.",
    "study": "Size, plan, run and analyse a study of a model in use.",
}

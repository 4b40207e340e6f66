// The node: whether its parts work, what waits, who it speaks with, what was set aside and why.

import { ApiError, ask } from "./api.js";
import { showAccounts } from "./accounts.js";
import { isTyping, showHelp } from "./help.js";
import { button, make } from "./viewer.js";
import { DASH, empty, notice, numberText, pill, since, table, timeText } from "./words.js";

const LOOK_MS = 10000;
const STATES = {
  Studies: { receiving: "images still come", complete: "all images are here, models are at work", done: "no model has anything left to do", aside: "somebody has to look at it" },
  Jobs: { blocked: "waits for another model's answer", waiting: "waits for a free worker", running: "the model computes", sending: "its answer is on the way to peers", done: "ended, and its answer has arrived", aside: "failed for good: retry it", cancelled: "a person ended it", superseded: "newer images replaced its own" },
  Deliveries: { waiting: "will be sent, or sent again", sent: "the peer has taken it", committed: "the peer has confirmed to keep it", aside: "not sent, for the reason above" },
};

export async function showNode(main, { me }) {
  const content = make("div", { className: "cards" });
  const mayRetry = me.role !== "viewer", isKeeper = me.role === "administrator";
  main.append(make("div", { className: "bar" }, make("h1", { text: "Node" })), content);
  document.addEventListener("keydown", (event) => event.key === "?" && !isTyping(event) && showHelp());

  async function load(isBackground = false) {
    // Each part stands by itself: what this role may not see, or what fails, says so in its place.
    const may = (path) => ask(path, { isBackground }).catch((error) => ({ failure: error instanceof ApiError ? error.words : String(error.message) }));
    const jobs = (state) => may(`/api/jobs?limit=200&state=${state}`);
    const [node, ready, running, waiting, failed, models, peers, aside] = await Promise.all([
      may("/api/node"), readiness(), jobs("running"), jobs("waiting"), jobs("aside"), may("/api/models"), may("/api/peers"), may("/api/aside?limit=50"),
    ]);
    const queue = running.failure || waiting.failure ? running : { rows: [...running.rows, ...waiting.rows] };
    const focused = document.activeElement?.id;
    content.replaceChildren(
      card("Health", ready.failure ? notice(ready.failure, "error") : health(ready, node), true),
      card("Numbers", node.failure ? notice(node.failure, "error") : numbers(node)),
      card("Queue", listed(queue, "Queue", ["Job", "Model", "State", "Waiting", "Tries"], (job) =>
        [short(job.job), job.model, stateText(STATES.Jobs, job.state), since(job.created_at), String(job.attempts)], "Nothing waits.")),
      card("Errors", listed(failed, "Errors", ["Job", "Model", "Reason", "Again"], (job) =>
        [short(job.job), job.model, job.reason ?? DASH, mayRetry ? retry(job, load) : ""], "No job was set aside."), true),
      card("Models", listed(models, "Models", ["Model", "Version", "Task", "Modality", "Gate", "Rules"], (one) =>
        [one.name, one.model_version, one.task.replaceAll("_", " "), one.modality || "any", one.is_gated ? one.gate : pill(one.gate, "waiting"), one.rules.join(", ") || "no rule"], "The node has no model: it is a review station.")),
      card("Peers", listed(peers, "Peers", ["Peer", "AE title", "Address", "May", "Test"], (peer) =>
        [peer.name, peer.ae_title, `${peer.host}:${peer.port}`, peer.may.join(", "), isKeeper ? echo(peer) : ""], "The node knows no other system.")),
      card("Set aside", listed(aside, "Set aside", ["At", "Reason", "Object"], (one) =>
        [one.at ? timeText(one.at) : DASH, one.reason, short(one.sop_instance_uid ?? "")], "Nothing was set aside."), true),
      card("Not taken", refusals(node), true),
      card("Log", troubles(node), true),
    );
    if (focused) document.getElementById(focused)?.focus();
  }

  await load();
  await showAccounts(main, me);
  setInterval(() => document.hidden || load(true).catch(() => {}), LOOK_MS);
}

// Health is answered with 503 where a part does not work, and says which.
async function readiness() {
  try {
    const response = await fetch("/health/ready", { credentials: "same-origin" });
    return await response.json();
  } catch {
    return { failure: "The node does not answer." };
  }
}

// isWide: of reasons, which go across the page
export function card(name, content, isWide = false) {
  return make("section", { className: isWide ? "card wide" : "card" }, make("h2", { text: name }), content);
}

export function listed(answer, name, heads, cells, none) {
  if (answer.failure) return notice(answer.failure, "error");
  return answer.rows.length ? table(name, heads, answer.rows.map(cells)) : empty(none);
}

// Parts of the node, and its peers as they were met last.
function health({ parts }, { contacts = [] }) {
  const rows = parts.map(({ part, ok, problem }) => [part, ok ? pill("works", "done") : pill("does not work", "aside"), DASH, DASH, problem ?? DASH]);
  const peers = contacts.map(({ peer, last_contact: at, waiting, last_error: error }) =>
    [`peer ${peer}`, error ? pill("does not take all", "aside") : at ? pill("works", "done") : pill("not met yet", ""), at ? timeText(at) : DASH, String(waiting), error ?? DASH]);
  return table("Health", ["Part", "State", "Last contact", "Waiting", "Last error"], [...rows, ...peers]);
}

function stateText(meanings, state, count = "") {
  return make("span", {}, `${count} ${state}`.trim(), make("small", { text: meanings[state] ?? "" }));
}

function numbers(node) {
  const counts = (kind, of) => Object.entries(of).map(([state, n]) => stateText(STATES[kind], state, n));
  const rows = [
    ["Name", node.name], ["Version", node.version], ["DICOM", `${node.ae_title} at ${node.dicom}`],
    ...(node.dicom_over_tls ? [["DICOM over TLS", node.dicom_over_tls]] : []),
    ["Free disk", `${numberText(node.free_gb, 3)} GB`], ...["Studies", "Jobs", "Deliveries"].map((kind) => [kind, ...counts(kind, node[kind.toLowerCase()])]),
  ];
  return make("dl", { className: "facts" }, ...rows.flatMap(([name, ...texts]) => [make("dt", { text: name }), make("dd", {}, ...(texts.length ? texts : ["none"]))]));
}

// Why a rule did not take a series: the conditions that did not hold.
function refusals({ failure, untaken }) {
  if (failure) return notice(failure, "error");
  if (!untaken.length) return empty("Rules took every series of late.");
  return table("Not taken", ["Study", "Series", "Rule", "Why"], untaken.map((one) => [studyLink(one.study), short(one.series), one.rule, one.fails.join("; ")]));
}

function troubles({ failure, troubles }) {
  if (failure) return notice(failure, "error");
  if (!troubles.length) return empty("The log has no warning and no error.");
  return table("Log", ["At", "Process", "Level", "Message"], troubles.map((one) =>
    [timeText(one.at), one.process, pill(one.level.toLowerCase(), /warn/i.test(one.level) ? "waiting" : "aside"), one.message]));
}

function studyLink(study) {
  const made = make("a", { href: `/study/${study}` });
  made.append(short(study));
  return made;
}

function echo(peer) {
  const said = make("span", { className: "faint", role: "status" });
  const ask_ = button("Echo", async () => {
    said.textContent = "\u2026";
    said.textContent = await ask(`/api/peers/${encodeURIComponent(peer.name)}/echo`, { method: "POST" })
      .then(({ seconds }) => `answers in ${Math.round(1000 * seconds)} ms`, (error) => error.message);
  }, { id: `echo-${peer.name}`, ariaLabel: `Echo ${peer.name}` });
  return make("span", { className: "inline" }, ask_, said);
}

function retry(job, load) {
  const again = () => ask(`/api/jobs/${job.job}/retry`, { method: "POST" }).then(() => load());
  return button("Retry", again, { id: `retry-${job.job}`, ariaLabel: `Retry job ${job.job}` });
}

const short = (name) => make("span", { className: "short", title: name, text: name.length > 16 ? `\u2026${name.slice(-14)}` : name });

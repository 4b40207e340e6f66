// What a model found in a study, in words: its answer, findings with intervals and codes, or why it gives none.

import { make } from "./viewer.js";
import { DASH, intervalTexts, notice, numberText, pill, timeText } from "./words.js";

const OPEN = { waiting: "The model has not begun.", running: "The model is computing.", blocked: "The model waits for the end of the study." };

export function resultHead(job) {
  const name = job.segmentation_of_another ? job.model || "Another product" : job.model;
  const head = make("div", { className: "result-head" }, make("h2", { text: name }));
  if (job.priority && job.priority !== "routine") head.append(pill(job.priority, job.priority));
  const facts = [
    job.segmentation_of_another ? "segmentation of another product" : "",
    job.version && `version ${job.version.slice(0, 12)}`, job.rule && `rule ${job.rule}`, job.revision ? `correction ${job.revision}` : "",
  ].filter(Boolean);
  return [head, make("p", { className: "faint", text: facts.join(" \u00b7 ") })];
}

// Why there is no result, or what of it is lacking.
export function resultNotice(job) {
  if (job.outcome === "abstained") return notice(`The model abstains: ${job.reason || "it gives no reason"}`, "warning");
  if (job.state === "aside") return notice(`The job was set aside: ${job.reason || "no reason is recorded"}`, "error");
  if (job.state === "superseded") return notice("Newer images have replaced those of this result.", "warning");
  if (job.state === "cancelled") return notice("The job was cancelled.", "warning");
  if (OPEN[job.state]) return notice(OPEN[job.state]);
  if (job.outcome === "nothing") return notice(`The model has found nothing${job.reason ? `: ${job.reason}` : ""}.`);
  if (job.reason) return notice(job.reason, "warning");
  return null;
}

// goTo: called with a finding that has a place in the image
export function findingsTable(job, goTo) {
  const rows = job.findings.filter((row) => row.box === null || row.box === undefined || job.boxes.length < 30);
  if (!rows.length) return null;
  const body = make("tbody", {}, ...rows.map((row) => line(row, job, goTo)));
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Finding" }), make("th", { scope: "col", text: "Value" })));
  return make("table", { className: "findings", ariaLabel: "Findings" }, head, body);
}

function line(row, job, goTo) {
  const name = make("td", { className: row.group && row.label === null ? "part" : "" });
  const hasPlace = isKnown(row.label) || isKnown(row.box);
  if (hasPlace) {
    const find = make("button", { type: "button", className: "link", text: row.concept, title: "Show where it is" });
    find.addEventListener("click", () => goTo(row));
    name.append(find);
  } else name.append(make("span", { text: row.concept }));
  if (row.called) name.append(pill("called", "called"));
  const code = row.codes?.[0];
  if (code) name.append(make("small", { text: `${code.scheme} ${code.value}`, title: code.meaning }));
  return make("tr", {}, name, make("td", { className: "number" }, ...value(row)));
}

const isKnown = (one) => one !== null && one !== undefined;

function value(row) {
  const parts = [], unit = row.unit ? ` ${row.unit}` : "";
  if (typeof row.value === "number" && isKnown(row.low) && isKnown(row.high)) {
    const [text, low, high] = intervalTexts(row.value, row.low, row.high);
    parts.push(make("span", { text: `${text}${unit}` }), make("small", { text: `${low} to ${high}`, title: "interval" }));
  } else if (typeof row.value === "number") parts.push(make("span", { text: `${numberText(row.value)}${unit}` }));
  else if (typeof row.value === "boolean") parts.push(make("span", { text: row.value ? "present" : "absent" }));
  if (isKnown(row.probability)) {
    parts.push(make("span", { className: "probability", text: `${numberText(100 * row.probability)} %` }));
    if (!row.calibrated) parts.push(make("small", { text: "not calibrated" }));
  }
  if (row.possible?.length) parts.push(make("small", { text: `not ruled out: ${row.possible.join(", ")}` }));
  return parts.length ? parts : [make("span", { text: DASH })];
}

export function verdictLine(verdict) {
  const words = { accept: "Accepted", correct: "Corrected", reject: "Rejected" }[verdict.verdict] ?? verdict.verdict;
  const why = [verdict.reason, verdict.text].filter(Boolean).join(": ");
  const by = [verdict.account && `by ${verdict.account}`, verdict.at && timeText(verdict.at)].filter(Boolean).join(", ");
  return make("p", { className: `notice ${verdict.verdict}` }, make("strong", { text: words }), make("span", { text: ` ${by}` }), ...(why ? [make("span", { className: "why", text: why })] : []));
}

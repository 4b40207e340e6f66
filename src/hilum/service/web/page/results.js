// What a model found in a study, in words: its answer, findings with intervals and codes, or why it gives none.

import { make } from "./viewer.js";
import { DASH, intervalTexts, notice, numberText, pill, timeText, unanswered } from "./words.js";

const SHOWN_PARTS = 3; // measurements of a structure that stand there before somebody asks for the others
const MOST_BOXES = 30;
const OPEN = { waiting: "The model has not begun.", running: "The model is computing.", blocked: "The model waits for the end of the study." };

export function resultHead(job) {
  const name = job.segmentation_of_another ? job.model || "Another product" : job.model;
  const head = make("div", { className: "result-head" }, make("h2", { text: name }));
  if (job.priority && job.priority !== "routine") head.append(pill(job.priority, job.priority));
  const facts = [
    job.segmentation_of_another ? "segmentation of another product" : "",
    job.version && `version ${job.version}`, job.rule && `rule ${job.rule}`, job.revision ? `correction ${job.revision}` : "",
  ].filter(Boolean);
  const made = [head, make("p", { className: "faint", text: facts.join(" \u00b7 ") })];
  return job.gate && job.outcome === "answered" ? [...made, notice(`This answer was not checked against the images that trained the model: ${job.gate}.`, "warning")] : made;
}

// Why there is no result, or what of it is lacking.
export function resultNotice(job) {
  if (job.state === "aside") return notice(`The job was set aside: ${job.reason || "no reason is recorded"}`, "error");
  if (job.state === "superseded") return notice("Newer images have replaced those of this result.", "warning");
  if (job.state === "cancelled") return notice("The job was cancelled.", "warning");
  if (OPEN[job.state]) return notice(OPEN[job.state]);
  const words = unanswered(job);
  if (words) return notice(`${words[0].toUpperCase()}${words.slice(1)}`, job.outcome === "failed" ? "error" : "warning");
  if (job.reason) return notice(job.reason, "warning");
  return null;
}

// Each structure with its size, and under it what was measured of it. goTo, remove: called with a finding that has
// a place, and with one of a box; removed: the boxes that the draft takes away
export function findingsTable(job, actions) {
  const rows = job.findings.filter((row) => !isKnown(row.box) || job.boxes.length < MOST_BOXES);
  if (!rows.length) return null;
  const parts = new Map(); // the first finding of a group -> the others of it
  const firsts = new Map();
  for (const row of rows) {
    const group = row.group && row.group !== "class" ? row.group : null;
    if (group && firsts.has(group)) parts.get(firsts.get(group)).push(row);
    else {
      parts.set(row, []);
      if (group) firsts.set(group, row);
    }
  }
  const bodies = [...parts].flatMap(([first, rest]) => structure(first, rest, actions));
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Finding" }), make("th", { scope: "col", text: "Value" })));
  return make("table", { className: "findings", ariaLabel: "Findings" }, head, ...bodies);
}

function structure(first, rest, actions) {
  const shown = rest.length <= SHOWN_PARTS + 1 ? rest : rest.slice(0, SHOWN_PARTS), others = rest.slice(shown.length);
  const body = make("tbody", {}, line(first, actions), ...shown.map((row) => line(row, null)));
  if (!others.length) return [body];
  const more = make("tbody", { hidden: true }, ...others.map((row) => line(row, null)));
  const toggle = make("button", { type: "button", className: "link", text: `${others.length} more measurements`, ariaExpanded: "false" });
  toggle.addEventListener("click", () => {
    more.hidden = !more.hidden;
    toggle.setAttribute("aria-expanded", String(!more.hidden));
    toggle.textContent = more.hidden ? `${others.length} more measurements` : "fewer measurements";
  });
  body.append(make("tr", {}, make("td", { className: "part", colSpan: 2 }, toggle)));
  return [body, more];
}

// actions: null for a measurement of a structure
function line(row, actions) {
  const name = make("td", { className: actions ? "" : "part" });
  if (actions && (isKnown(row.label) || isKnown(row.box))) {
    const find = make("button", { type: "button", className: "link", text: row.concept, title: "Show where it is" });
    find.addEventListener("click", () => actions.goTo(row));
    name.append(find);
  } else name.append(make("span", { text: row.concept }));
  if (row.called) name.append(pill(row.group === "advice" ? "advice" : "called", "called"));
  const code = row.codes?.[0];
  if (code) name.append(make("small", { text: `${code.scheme} ${code.value}`, title: code.meaning }));
  const number = make("td", { className: "number" }, ...value(row)), made = make("tr", {}, name, number);
  if (actions?.remove && isKnown(row.box)) {
    const isRemoved = actions.removed.has(row.box);
    made.classList.toggle("removed", isRemoved);
    const remove = make("button", { type: "button", className: "link", text: "remove", disabled: isRemoved, ariaLabel: `Remove box ${row.box + 1}, ${row.concept}` });
    remove.addEventListener("click", () => actions.remove(row));
    number.append(remove);
  }
  return made;
}

const isKnown = (one) => one !== null && one !== undefined;

function value(row) {
  const parts = [], unit = row.unit && row.unit !== "1" ? ` ${row.unit}` : ""; // 1: UCUM's word for none
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

// What changed since the study that stands beside it. A change within the limits of repeated measurements is none.
export function changeTable(change) {
  const lines = change.rows.map((row) => {
    const texts = isKnown(row.low) ? intervalTexts(Number(row.percent), row.low, row.high) : [numberText(Number(row.percent))];
    const within = row.low <= 0 && row.high >= 0 ? ", within repeated measurements" : "";
    const further = [isKnown(row.low) && `${texts[1]} to ${texts[2]} %${within}`, row.percent_a_year && `${numberText(Number(row.percent_a_year))} % a year`];
    const percent = make("td", { className: "number" }, make("span", { text: `${texts[0]} %` }), ...further.filter(Boolean).map((text) => make("small", { text })));
    const [before, now] = [row.before, row.now].map((ml) => make("td", { className: "number", text: numberText(Number(ml)) }));
    return make("tr", {}, make("td", { text: row.label }), before, now, percent);
  });
  const days = Number(change.rows[0]?.days), name = ["Change", change.date && `since ${change.date}`, days && `(${days} days)`].filter(Boolean).join(" ");
  const made = make("section", { className: "change" }, make("h2", { text: name }));
  if (!lines.length) made.append(notice("No structure has a change that can be stated."));
  const heads = ["Structure", "ml before", "now", "change"].map((text) => make("th", { scope: "col", text }));
  if (lines.length) made.append(make("table", { className: "findings", ariaLabel: name }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines)));
  return made;
}

export function verdictLine(verdict) {
  const words = verdict.verdict;
  const why = [verdict.reason, verdict.text].filter(Boolean).join(": ");
  const by = [verdict.account && `by ${verdict.account}`, verdict.at && timeText(verdict.at)].filter(Boolean).join(", ");
  return make("p", { className: `notice ${verdict.verdict}` }, make("strong", { text: words[0].toUpperCase() + words.slice(1) }), make("span", { text: ` ${by}` }), ...(why ? [make("span", { className: "why", text: why })] : []));
}

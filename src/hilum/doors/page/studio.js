// The page for people without a command line: data, plan, training, runs. What it does are jobs, shown as commands.
import { WORDS } from "./studio_words.js";

const POLL_MS = 400, RECHECK_MS = 900;
const state = { page: "data", data: "", options: {}, check: "", table: null, doubts: new Map(), changes: [], plan: null, planned: {}, hand: {}, all: false, jobs: [], runs: [], points: {}, offsets: {}, last: {}, chosen: new Set(), sort: null, commands: [] };
const COLOURS = ["accent", "amber", "green", "red", "text", "faint"].map((name) => `var(--${name})`), DASHES = ["", "6 3", "2 3", "9 3 2 3", "1 4", "12 4"];

function el(name, given = {}, ...parts) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && !["list", "form"].includes(key)) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...parts.flat().filter((part) => part !== null && part !== undefined && part !== false));
  return made;
}

const field = (words, control, wide) => el("label", { className: wide ? "field wide" : "field" }, words, control);
const $ = (selector, within = document) => within.querySelector(selector);
const sentence = (error) => [error.where && `${error.where}: ${error.problem}`, error.remedy].filter(Boolean).map((one) => one.replace(/\.$/, "")).join(". ") + ".";

async function ask(path, { method = "GET", body, raw } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(path, { method, headers, body: raw ?? (body === undefined ? undefined : JSON.stringify(body)) });
  } catch {
    throw { problem: "", where: "", remedy: WORDS.lost };
  }
  if (response.ok) return response.json();
  throw response.status === 403 ? { problem: "", where: "", remedy: WORDS.lost } : await response.json().catch(() => ({ problem: String(response.status), where: path, remedy: "" }));
}

const say = (place, error) => { $("[role=alert]", place).textContent = error ? sentence(error) : ""; };

function commandLines(place, { shell, python }) {
  place.replaceChildren(...[[WORDS.shell, shell], [WORDS.python, python]].filter(([, text]) => text).map(([words, text]) => el("div", { className: "command" },
    el("code", { "data-command": words === WORDS.shell ? "shell" : "python", "aria-label": words, tabIndex: 0 }, text),
    el("button", { type: "button", "aria-label": `${WORDS.copy}: ${words}`, onclick: async (event) => { await navigator.clipboard.writeText(text); event.target.textContent = WORDS.copied; } }, WORDS.copy))));
}

// ---- jobs
async function startJob(name, values, place) {
  say(place, null);
  try {
    const job = await ask(`/api/jobs/${name}`, { method: "POST", body: values });
    const lines = $(".lines", place);
    if (lines) commandLines(lines, job);
    state.jobs.push(job);
    showJobs();
    return job;
  } catch (error) { say(place, error); return null; }
}

function whenDone(id, then) {
  const timer = setInterval(() => {
    const job = state.jobs.find((one) => one.id === id);
    if (job && ["done", "failed", "stopped"].includes(job.state)) { clearInterval(timer); then(job); }
  }, 200);
}

async function poll() {
  try {
    const before = JSON.stringify(state.jobs.map((one) => one.state));
    const { jobs, problems } = await ask("/api/jobs");
    state.jobs = jobs;
    for (const job of jobs.filter((one) => one.state === "running" || (isTraining(one) && state.offsets[one.id] === undefined))) {
      const { records, end } = await ask(`/api/jobs/${job.id}/progress?start=${state.offsets[job.id] ?? 0}`);
      state.offsets[job.id] = end;
      if (records.length) state.last[job.id] = records.at(-1);
      (state.points[job.id] ??= []).push(...records.filter((one) => one.loss !== undefined && one.loss !== null));
    }
    showJobs();
    say($("footer.jobs"), problems.length ? { remedy: problems.join(" ") } : null);
    if (before !== JSON.stringify(jobs.map((one) => one.state))) {
      $("footer.jobs [role=status]").textContent = jobs.length ? `${jobs.at(-1).id}: ${jobs.at(-1).state}` : "";
      showRuns(await ask("/api/runs"));
    }
  } catch (error) { say($("footer.jobs"), error); }
  setTimeout(poll, POLL_MS);
}

const isTraining = (job) => ["train", "pretrain"].includes(job.words);
const pill = (job) => el("span", { className: `pill ${job.state}` }, job.state);

function jobParts(job) {
  const isLast = !state.jobs.some((one) => one.id > job.id && one.out === job.out), running = ["running", "waiting"].includes(job.state);
  return [
    el("strong", {}, job.id), pill(job),
    running && el("span", { role: "progressbar", "aria-label": job.id }),
    job.problem && el("span", { role: "alert" }, job.problem),
    running && el("button", { type: "button", onclick: () => ask(`/api/stop/${job.id}`, { method: "POST" }) }, isTraining(job) ? WORDS.pause : WORDS.stop),
    job.words === "train" && job.out && isLast && ["running", "stopped"].includes(job.state) && !job.shell.includes("--end-now") && el("button", { type: "button", onclick: () => keepBest(job) }, WORDS.keepBest),
    isTraining(job) && ["stopped", "failed"].includes(job.state) && job.out && isLast && el("button", { type: "button", onclick: () => startJob(job.words, { resume: job.out }, $("#training")) }, WORDS.resume),
    !running && el("button", { type: "button", onclick: () => showResult(job) }, WORDS.result),
  ];
}

// What a training has learnt so far is calibrated, evaluated and reported: a job that follows it.
async function keepBest(job) {
  const place = $("#training");
  try { commandLines($(".lines", place), await ask(`/api/stop/${job.id}?keep=true`, { method: "POST" })); } catch (error) { say(place, error); }
}

function jobItem(name, job) {
  return el(name, { "data-job": job.id, "data-verb": job.words, "data-state": job.state, className: name === "div" ? "card" : "" },
    el("div", { className: "bar" }, jobParts(job)), name === "div" && el("div", { className: "command" }, el("code", { "data-command": "shell" }, job.shell)));
}

function replaceKept(place, parts) {
  // A list that looks the same is left alone, so that the focus stays.
  const next = el("div", {}, parts);
  if (next.innerHTML !== place.dataset.shown) { place.dataset.shown = next.innerHTML; place.replaceChildren(...next.childNodes); }
}

function showJobs() {
  const trainings = state.jobs.filter(isTraining).reverse(), others = state.jobs.filter((one) => !isTraining(one)).reverse();
  replaceKept($("#training .list"), trainings.length ? trainings.map((job) => jobItem("div", job)) : [el("p", { className: "empty" }, WORDS.noTraining)]);
  replaceKept($("footer.jobs ul"), others.length ? others.map((job) => jobItem("li", job)) : [el("li", {}, WORDS.noJobs)]);
  for (const job of state.jobs) showProgress($(`[data-job="${job.id}"]`), job);
  drawCurves(trainings);
}

// Apart from the buttons beside it, which keep the focus.
function showProgress(place, job) {
  const bar = $("[role=progressbar]", place), last = state.last[job.id];
  if (isTraining(job)) place.dataset.points = (state.points[job.id] ?? []).length;
  if (!bar || !last) return;
  bar.textContent = `${WORDS.of(last)} ${WORDS.left(last.seconds_left)}`;
  for (const [name, value] of [["now", last.done], ["max", last.of], ["text", bar.textContent]]) bar.setAttribute(`aria-value${name}`, value);
}

async function showResult(job) {
  const { words, errors } = await ask(`/api/jobs/${job.id}/result`);
  const place = $("#result");
  place.hidden = false;
  place.replaceChildren(el("div", { className: "bar" }, el("h2", {}, job.id), el("button", { type: "button", onclick: () => { place.hidden = true; } }, WORDS.close)), el("pre", {}, words || errors || job.problem));
  place.scrollIntoView({ block: "nearest" });
}

// ---- curves
function drawCurves(trainings) {
  const shown = trainings.filter((job) => (state.points[job.id] ?? []).length).slice(0, COLOURS.length);
  const charts = ["loss", "validation"].map((name) => curveChart(name, shown.map((job) => [job, state.points[job.id].filter((one) => one[name] !== null && one[name] !== undefined)])));
  replaceKept($("#training .charts"), shown.length ? charts : []);
}

function curveChart(name, series) {
  const W = 720, H = 240, L = 52, B = 24, all = series.flatMap(([, points]) => points);
  const xs = all.map((one) => one.done), ys = all.map((one) => one[name]).sort((a, b) => a - b);
  // The first steps of a training are far above the rest.
  const low = ys[0] ?? 0, high = ys[Math.floor(0.98 * (ys.length - 1))] ?? 1, most = Math.max(1, ...xs);
  // Room for the legend above.
  const x = (v) => L + ((W - L - 8) * v) / most, y = (v) => H - B - ((H - B - 26) * (Math.min(v, high) - low)) / (high - low || 1);
  const words = WORDS[name], label = `${words}: ${series.map(([job, points]) => `${job.id} ${points.length ? points.at(-1)[name].toPrecision(3) : "-"}`).join(", ")}`;
  const paths = series.map(([, points], n) => `<path d="${points.map((one, k) => `${k ? "L" : "M"}${x(one.done).toFixed(1)} ${y(one[name]).toFixed(1)}`).join("")}${points.length === 1 ? "h.1" : ""}" style="stroke: ${COLOURS[n]}" stroke-width="${points.length === 1 ? 5 : 1.8}" stroke-dasharray="${DASHES[n]}"/>`);
  const legend = series.map(([job], n) => `<path d="M${L + 8 + n * 150} 10h18" style="stroke: ${COLOURS[n]}" stroke-dasharray="${DASHES[n]}"/><text x="${L + 30 + n * 150}" y="14">${job.id.replace(/[^\w-]/g, "")}</text>`);
  const made = el("div", {}, el("h2", {}, words));
  made.insertAdjacentHTML("beforeend", `<svg class="chart" viewBox="0 0 ${W} ${H}" role="img" aria-label="${label.replace(/["<&]/g, "")}"><path class="axis" d="M${L} 8V${H - B}H${W - 8}"/><text x="4" y="30">${high.toPrecision(3)}</text><text x="4" y="${H - B}">${low.toPrecision(3)}</text><text x="${W - 60}" y="${H - 8}">${most}</text>${paths.join("")}${legend.join("")}</svg>`);
  return made;
}

// ---- forms made from the options of a command
function control(name, shape, value) {
  const forms = shape.anyOf ?? [shape], kinds = forms.map((one) => one.type), choices = forms.find((one) => one.enum)?.enum;
  const numbers = forms.find((one) => ["integer", "number"].includes(one.type)) ?? {};
  const least = numbers.minimum ?? numbers.exclusiveMinimum, most = numbers.maximum ?? numbers.exclusiveMaximum;
  const common = { name, title: shape.description, "data-kind": kinds.join(" ") };
  if (choices) return el("select", common, el("option", { value: "" }, ""), choices.map((one) => el("option", { value: one, selected: one === value }, one)));
  if (kinds.includes("boolean")) return el("input", { type: "checkbox", checked: value === true, ...common });
  if (kinds.includes("array")) return el("textarea", { rows: 1, ...common }, [value ?? ""].flat().join("\n"));
  if (kinds.some((kind) => ["integer", "number"].includes(kind))) return el("input", { type: "number", step: kinds.includes("number") ? "any" : 1, min: least, max: most, value: value ?? "", placeholder: shape.default ?? "", ...common });
  return el("input", { type: "text", value: value ?? "", placeholder: shape.default ?? "", ...common });
}

function valuesOf(form) {
  const values = {};
  for (const one of form.querySelectorAll("[data-kind]")) {
    const kinds = one.dataset.kind.split(" "), text = one.value.trim();
    if (one.type === "checkbox") { if (one.checked) values[one.name] = true; } else if (text) {
      const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
      values[one.name] = one.type === "number" ? Number(text) : lines.length > 1 || !kinds.includes("string") ? lines : text;
    }
  }
  return values;
}

function commandForm(command, preset, then) {
  const { properties, required } = command.schema, names = Object.keys(properties);
  const fields = (some) => el("div", { className: "options" }, some.map((name) => field(name, control(name, properties[name], preset[name]))));
  const first = names.filter((name) => required.includes(name) || name in preset || name === "out");
  const form = el("form", { "aria-label": command.words, onsubmit: async (event) => {
    event.preventDefault();
    const job = await startJob(command.name, { ...valuesOf(form) }, form);
    if (job) then?.(job);
  } }, el("p", { className: "faint" }, command.text), fields(first), el("details", {}, el("summary", {}, WORDS.more), fields(names.filter((name) => !first.includes(name)))),
  el("div", { className: "bar" }, el("button", { className: "primary" }, `${WORDS.start}: ${command.words}`)), el("p", { role: "alert" }), el("div", { className: "lines" }));
  return form;
}

// ---- data
function dataPage() {
  const form = el("form", { className: "bar", onsubmit: (event) => { event.preventDefault(); state.table = null; state.changes = []; check($("[name=folder]", form).value.trim(), Number($("[name=ranking]", form).value)); } },
    field(WORDS.folder, el("input", { name: "folder", list: "folders", required: true, autocomplete: "off", oninput: (event) => suggestFolders(event.target.value) }), true),
    field(WORDS.names, el("input", { name: "labels" }), true), field(WORDS.doubts, el("input", { name: "doubts" }), true), field(WORDS.ranking, el("input", { name: "ranking", type: "number", min: 0, step: "any" })), el("button", { className: "primary" }, WORDS.check));
  return el("section", { id: "data" }, el("h1", {}, WORDS.pages.data), form, el("datalist", { id: "folders" }), el("p", { role: "alert" }), el("p", { role: "status" }), el("div", { className: "lines" }),
    el("section", { "aria-label": WORDS.findings, className: "card", hidden: true }), el("div", { className: "cases" }));
}

async function suggestFolders(text) {
  const { folders } = await ask(`/api/folders?below=${encodeURIComponent(text.endsWith("/") ? text : "")}`).catch(() => ({ folders: [] }));
  $("#folders").replaceChildren(...folders.map((one) => el("option", { value: one })));
}

// minutes: in which short trainings rank the references; 0: they are not ranked, as after each change of the table
async function check(data, minutes = 0) {
  const place = $("#data"), labels = $("[name=labels]", place).value.trim();
  state.data = data;
  state.options = labels ? { labels } : {};
  const job = await startJob("check", { data, ...state.options, ...(minutes ? { minutes } : {}) }, place);
  if (!job) return;
  state.check = job.id;
  $("[role=status]", place).textContent = `${WORDS.check}…`;
  whenDone(job.id, async (ended) => {
    if (state.check !== ended.id) return; // a later one was asked for meanwhile, perhaps of other data
    const { result } = await ask(`/api/jobs/${ended.id}/result`);
    $("[role=status]", place).textContent = "";
    if (!result?.rows) return say(place, result?.error ?? { remedy: ended.problem });
    if (!state.table) {
      const path = `${ended.out}/dataset.csv`;
      state.table = await ask(`/api/table?path=${encodeURIComponent(path)}`).then((one) => ({ ...one, path })).catch(() => null);
      state.doubts = await askDoubts(minutes ? path : data, place);
      if (state.table) showCases();
    }
    showFindings(result);
  });
}

// {case: what speaks against its reference} of a list that is named or lies beside the data, in its order.
async function askDoubts(data, place) {
  const named = $("[name=doubts]", place).value.trim();
  try {
    return new Map(await ask(`/api/doubts?data=${encodeURIComponent(data)}&named=${encodeURIComponent(named)}`));
  } catch (error) { say(place, error); return new Map(); }
}

function showFindings({ facts, rows, passed }) {
  const place = $(`[aria-label="${WORDS.findings}"]`);
  place.hidden = false;
  place.dataset.passed = passed;
  place.replaceChildren(el("h2", {}, WORDS.findings),
    rows.length ? el("ul", {}, rows.map((one) => el("li", { "data-severity": one.severity }, el("strong", {}, `${WORDS.severity[one.severity] ?? one.severity}: `), one.what, one.cases.length ? ` (${one.cases.slice(0, 8).join(", ")}${one.cases.length > 8 ? "…" : ""})` : "", el("small", {}, [one.why, one.remedy].filter(Boolean).join(". ")),
      one.severity === "warning" && one.accepts.length > 0 && state.table && el("button", { type: "button", "aria-label": `${WORDS.accept}: ${one.what}`, onclick: () => accept(one) }, WORDS.accept)))) : el("p", {}, WORDS.noFindings),
    el("dl", { className: "facts" }, Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])));
}

function showCases() {
  const { head, rows, path } = state.table, image = head.findIndex((name) => name.startsWith("image")), folder = path.slice(0, path.lastIndexOf("/") + 1);
  const absolute = (cell) => (cell.startsWith("/") ? cell : folder + cell);
  const cell = (row, place) => el("td", { className: row.edited?.has(place) ? "edited" : "", "data-words": WORDS.edited }, el("input", { value: row[place] ?? "", "aria-label": `${head[place]}, ${row[0]}`, onchange: (event) => { event.target.parentElement.className = "edited"; change([[row, place, event.target.value]]); } }));
  // The order is of the page alone: the table that is written keeps its own.
  const ranks = new Map([...state.doubts.keys()].map((name, rank) => [name, rank])), rank = (row) => ranks.get(row[0]) ?? ranks.size;
  const shown = [...rows].sort((a, b) => rank(a) - rank(b));
  $("#data .cases").replaceChildren(el("div", { className: "bar" }, el("h2", {}, `${WORDS.cases}: ${rows.length}`), el("button", { type: "button", onclick: takeBack, disabled: !state.changes.length }, WORDS.takeBack), el("button", { type: "button", onclick: recheck }, WORDS.checkAgain)),
    el("div", { className: "scroll tall" }, el("table", { "aria-label": WORDS.cases },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, WORDS.thumbnail), ranks.size > 0 && el("th", { scope: "col" }, WORDS.doubt), head.map((name, place) => el("th", { scope: "col" }, el("input", { value: name, "aria-label": `role of column ${name}`, onchange: (event) => change([[head, place, event.target.value]]) }))))),
      el("tbody", {}, shown.map((row) => el("tr", { "data-case": row[0] }, el("td", {}, image >= 0 && row[image] && el("img", { loading: "lazy", width: 48, height: 48, alt: `${WORDS.thumbnail}: ${row[0]}`, src: `/api/thumbnail?path=${encodeURIComponent(absolute(row[image]))}` })), ranks.size > 0 && el("td", {}, state.doubts.get(row[0]) ?? ""), head.map((_, place) => cell(row, place))))))));
}

// Writes that a person accepts a warning into the cells of its cases; what was accepted of their older versions goes.
function accept({ cases, accepts }) {
  const { head, rows } = state.table, kind = accepts[0].split("@")[0];
  if (!head.includes("accepted")) head.push("accepted");
  for (const row of rows) while (row.length < head.length) row.push("");
  const column = head.indexOf("accepted"), cells = new Map(cases.map((name, n) => [name, accepts[n]]));
  const kept = (row) => row[column].split(";").map((one) => one.trim()).filter((one) => one && one.split("@")[0] !== kind);
  change(rows.filter((row) => cells.has(row[0])).map((row) => [row, column, [...kept(row), cells.get(row[0])].join(";")]));
  showCases();
}

let timer;
// Cells that are changed at once are taken back at once.
function change(cells, isBack = false) {
  if (!isBack) state.changes.push(cells.map(([row, place]) => [row, place, row[place] ?? ""]));
  for (const [row, place, value] of cells) {
    row[place] = value;
    (row.edited ??= new Set()).add(place);
    if (isBack) row.edited.delete(place);
  }
  clearTimeout(timer);
  timer = setTimeout(recheck, RECHECK_MS);
}

function takeBack() {
  const cells = state.changes.pop();
  if (cells) change(cells, true);
  showCases();
}

async function recheck() {
  clearTimeout(timer);
  const { path } = await ask("/api/table", { method: "POST", body: { ...state.table, rows: state.table.rows.map((row) => [...row]) } });
  check(path);
  const back = $("#data .cases button");
  if (back) back.disabled = !state.changes.length;
}

// ---- plan
function planPage() {
  const form = el("form", { className: "bar", onsubmit: (event) => { event.preventDefault(); state.hand = {}; state.planned = {}; plan(); } },
    field(WORDS.minutes, el("input", { name: "minutes", type: "number", min: 0, step: "any", value: 60 })), field(WORDS.kind, el("input", { name: "task", placeholder: "auto" })),
    field(WORDS.device, el("select", { name: "device" }, ["auto", "cpu", "cuda:0", "mps"].map((one) => el("option", {}, one)))), el("button", { className: "primary" }, WORDS.plan));
  return el("section", { id: "plan", hidden: true }, el("h1", {}, WORDS.pages.plan), form,
    el("div", { className: "bar" }, el("button", { type: "button", "aria-pressed": "false", onclick: (event) => { state.all = !state.all; event.target.setAttribute("aria-pressed", state.all); showPlan(); } }, WORDS.all), el("button", { type: "button", className: "primary", onclick: train }, WORDS.train), el("span", { role: "status" })),
    el("p", { role: "alert" }), el("div", { className: "lines" }), el("div", { className: "decisions" }, el("p", { className: "empty" }, WORDS.noPlan)));
}

function planValues() {
  const form = $("#plan form"), task = $("[name=task]", form).value.trim(), minutes = $("[name=minutes]", form).value;
  return { data: state.data || $("#data [name=folder]").value.trim(), ...state.options, device: $("[name=device]", form).value, ...(minutes ? { minutes: Number(minutes) } : {}), ...(task ? { task } : {}), ...(Object.keys(state.hand).length ? { assignments: state.hand } : {}) };
}

// changed: the decision that a person has just set, and its value before
async function plan(changed) {
  const place = $("#plan");
  say(place, null);
  $("[role=status]", place).textContent = WORDS.planning;
  try {
    const made = await ask("/api/plan", { method: "POST", body: planValues() });
    state.plan = made;
    if (!Object.keys(state.hand).length) state.planned = Object.fromEntries(made.decisions.map((one) => [one.name, JSON.stringify(one.value)]));
    commandLines($(".lines", place), made);
    showPlan();
  } catch (error) {
    $("[role=status]", place).textContent = "";
    const own = changed && $(`[data-decision="${changed.name}"]`, place);
    if (own) {
      if (changed.before === undefined) delete state.hand[changed.name]; else state.hand[changed.name] = changed.before;
      $("[role=alert]", own).textContent = sentence(error);
    } else say(place, error);
  }
}

function showPlan() {
  if (!state.plan) return;
  const focused = document.activeElement?.closest("[data-decision]")?.dataset.decision, sections = {};
  let hidden = 0, changed = 0;
  for (const one of state.plan.decisions) {
    const isChanged = state.planned[one.name] !== JSON.stringify(one.value);
    changed += isChanged;
    if (one.usual && !state.all && !isChanged) { hidden += 1; continue; }
    (sections[one.name.split(".")[0]] ??= []).push(decision(one, isChanged));
  }
  $("#plan [role=status]").textContent = [changed && WORDS.changed(changed), hidden && WORDS.usual(hidden)].filter(Boolean).join(" ");
  $("#plan .decisions").replaceChildren(...Object.entries(sections).map(([name, parts]) => el("fieldset", {}, el("legend", {}, name), parts)));
  if (focused) $(`[data-decision="${focused}"] [data-control]`)?.focus();
}

function decision(one, isChanged) {
  const { kind, choices, least, most, whole } = one.control, id = `d-${one.name}`;
  const common = { id, "data-control": kind, "aria-describedby": `${id}-why`, onchange: (event) => setDecision(one, event.target) };
  const made = kind === "choice" ? el("select", common, [...new Set([...choices, one.value].filter((value) => value !== null).concat(one.value === null ? [""] : []))].map((value) => el("option", { value, selected: value === (one.value ?? "") }, value)))
    : kind === "switch" ? el("input", { ...common, type: "checkbox", checked: one.value })
    : kind === "number" ? el("input", { ...common, type: "number", min: least, max: most, step: whole ? 1 : "any", value: one.value })
    : el("input", { ...common, type: "text", value: kind === "text" ? one.value : JSON.stringify(one.value) });
  return el("div", { "data-decision": one.name, "data-value": JSON.stringify(one.value), "data-changed": isChanged },
    el("label", { htmlFor: id }, one.name.split(".").slice(1).join(".")), el("span", { className: "unit" }, made, one.unit),
    el("div", { id: `${id}-why` }, one.because, el("small", {}, one.source, isChanged ? ` ${WORDS.planned}: ${state.planned[one.name] ?? "-"} ` : "", one.name in state.hand && el("button", { type: "button", className: "link", onclick: () => { delete state.hand[one.name]; plan(); } }, WORDS.restore))),
    el("p", { role: "alert" }));
}

function setDecision(one, input) {
  const before = state.hand[one.name], text = input.value.trim();
  let value = text;
  if (input.type === "checkbox") value = input.checked;
  else if (input.type === "number") value = text === "" ? null : Number(text);
  else if (one.control.kind === "value") { try { value = JSON.parse(text); } catch { value = text; } }
  state.hand[one.name] = value;
  plan({ name: one.name, before });
}

async function train() {
  const place = $("#plan");
  say(place, null);
  try {
    const made = await ask("/api/plan?keep=true", { method: "POST", body: planValues() });
    commandLines($(".lines", place), made);
    if (await startJob("train", { data: made.out }, $("#training"))) location.hash = "#training"; else say(place, { remedy: $("#training [role=alert]").textContent });
  } catch (error) { say(place, error); }
}

// ---- training, runs
const trainingPage = () => el("section", { id: "training", hidden: true }, el("h1", {}, WORDS.pages.training), el("p", { role: "alert" }), el("div", { className: "lines" }), el("div", { className: "cards charts" }), el("div", { className: "list" }));

const runsPage = () => el("section", { id: "runs", hidden: true }, el("h1", {}, WORDS.pages.runs), el("p", { role: "alert" }),
  el("div", { className: "bar" }, el("button", { type: "button", onclick: () => startJob("compare", { evaluations: [...state.chosen] }, $("#runs")) }, WORDS.compare)), el("div", { className: "lines" }), el("div", { className: "scroll tall table" }), el("div", { className: "forms" }), el("div", { className: "shown" }));

const number = (value) => (value === null || value === undefined ? "" : Number(value).toPrecision(3));

function showRuns(runs = state.runs) {
  state.runs = runs;
  const rows = [...runs], order = state.sort;
  if (order) rows.sort((a, b) => (typeof a[order] === "string" ? a[order].localeCompare(b[order]) : (b[order] ?? -Infinity) - (a[order] ?? -Infinity)));
  const heading = (words, key) => el("th", { scope: "col", "aria-sort": order === key ? "ascending" : "none" }, el("button", { type: "button", className: "sort", onclick: () => { state.sort = key; showRuns(); } }, words));
  const open = (run) => { for (const row of document.querySelectorAll("tr[data-run]")) row.setAttribute("aria-selected", row.dataset.run === run.name); showForms(run); };
  replaceKept($("#runs .table"), rows.length ? [el("table", { "aria-label": WORDS.runs }, el("thead", {}, el("tr", {}, el("th", {}), heading(WORDS.run, "name"), heading(WORDS.verdict, "verdict"), heading(WORDS.metric, "value"), el("th", {}))),
    el("tbody", {}, rows.map((run) => el("tr", { "data-run": run.name, tabIndex: 0, onclick: () => open(run), onkeydown: (event) => event.key === "Enter" && event.target.tagName === "TR" && open(run) },
      el("td", {}, el("input", { type: "checkbox", "aria-label": `${WORDS.compareThis}: ${run.name}`, onclick: (event) => event.stopPropagation(), onchange: (event) => (event.target.checked ? state.chosen.add(run.name) : state.chosen.delete(run.name)) })),
      el("td", {}, run.name), el("td", {}, run.verdict || WORDS.unfinished), el("td", {}, run.metric ? `${run.metric} ${number(run.value)}${run.low === null ? "" : ` (${number(run.low)} to ${number(run.high)})`}` : ""),
      el("td", {}, run.report && el("a", { href: `/files/${encodeURI(run.report)}`, onclick: (event) => { if (!event.ctrlKey && !event.metaKey) { event.preventDefault(); event.stopPropagation(); frame(`/files/${encodeURI(run.report)}`, `${WORDS.report}: ${run.name}`); } } }, WORDS.report))))))] : [el("p", { className: "empty" }, WORDS.noRuns)]);
}

const frame = (src, title) => $("#runs .shown").replaceChildren(el("div", { className: "bar" }, el("h2", {}, title), el("button", { type: "button", onclick: () => $("#runs .shown").replaceChildren() }, WORDS.close)), el("iframe", { src, title }));

function showForms(run) {
  const files = el("input", { type: "file", multiple: true, name: "images" }), zone = el("div", { className: "drop" }, field(WORDS.images, files), el("small", {}, WORDS.drop));
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => { event.preventDefault(); zone.classList.remove("over"); files.files = event.dataTransfer.files; });
  const form = el("form", { className: "card", "aria-label": WORDS.predict, onsubmit: (event) => { event.preventDefault(); predict(run, [...files.files], form); } }, el("h2", {}, `${WORDS.predict}: ${run.name}`), zone, el("div", {}, el("button", { className: "primary" }, WORDS.predict)), el("p", { role: "alert" }), el("div", { className: "lines" }), el("div", { className: "bar results" }));
  const choice = el("select", { onchange: () => pick() }, state.commands.map((one) => el("option", { value: one.name, selected: one.name === "package" }, one.words))), place = el("div");
  const pick = () => {
    const command = state.commands.find((one) => one.name === choice.value), own = ["run", "model", "subject", "source"].find((name) => name in command.schema.properties);
    place.replaceChildren(commandForm(command, own ? { [own]: run.name } : command.name === "compare" ? { evaluations: [run.name] } : {}));
  };
  $("#runs .forms").replaceChildren(form, el("div", { className: "card" }, field(WORDS.command, choice), place));
  pick();
}

async function predict(run, files, form) {
  say(form, null);
  try {
    const kept = [];
    for (const file of files) kept.push((await ask(`/api/files/${encodeURIComponent(file.name)}`, { method: "PUT", raw: file })).path);
    const job = await startJob("predict", { model: run.name, inputs: kept }, form);
    if (job) whenDone(job.id, async (ended) => {
      const { result } = await ask(`/api/jobs/${ended.id}/result`);
      if (ended.state !== "done") say(form, { remedy: ended.problem });
      const masks = (result?.files ?? []).filter((one) => /\.(nii|nii\.gz|nrrd|png|tiff?)$/.test(one));
      $(".results", form).replaceChildren(...kept.map((image, n) => el("button", { type: "button", onclick: () => look(image, masks[n], form) }, `${WORDS.view} ${image.split("/").at(-1)}`)));
    });
  } catch (error) { say(form, error); }
}

// A label map on the image's grid is corrected with the tools of a node's page; anything else is looked at.
async function look(image, mask, form) {
  const key = [...new TextEncoder().encode(JSON.stringify([image, mask]))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (mask && await ask(`/api/studies/${key}/reading`).catch(() => null)) return frame(`/study/${key}`, `${WORDS.view}: ${image}`);
  const job = await startJob("view", mask ? { image, mask } : { image }, form);
  if (job) whenDone(job.id, (ended) => (ended.state === "done" ? frame(`/files/${encodeURI(ended.out)}`, `${WORDS.view}: ${image}`) : say(form, { remedy: ended.problem })));
}

// ---- the frame
function go() {
  $("#result").hidden = true;
  document.title = `${WORDS.pages[location.hash.slice(1)] ?? WORDS.pages.data} \u2013 Hilum`;
  state.page = location.hash.slice(1) in WORDS.pages ? location.hash.slice(1) : "data";
  for (const name of Object.keys(WORDS.pages)) {
    $(`#${name}`).hidden = name !== state.page;
    const link = $(`nav a[href="#${name}"]`);
    if (name === state.page) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
}

function showPages() {
  document.body.append(
    el("header", { className: "top" }, el("a", { className: "brand", href: "#data" }, "Hilum"), el("nav", {}, Object.entries(WORDS.pages).map(([name, words]) => el("a", { href: `#${name}` }, words)))),
    el("main", {}, dataPage(), planPage(), trainingPage(), runsPage(), el("section", { id: "result", className: "card", hidden: true })),
    el("footer", { className: "jobs" }, el("h2", {}, WORDS.jobs), el("p", { role: "alert" }), el("p", { role: "status", className: "heard" }), el("ul")));
  addEventListener("hashchange", go);
  go();
  suggestFolders("");
  ask("/api/commands").then((commands) => { state.commands = commands; });
  ask("/api/runs").then(showRuns);
  poll();
}

async function showViewer(id) {
  document.head.querySelector("[rel=stylesheet]").before(el("link", { rel: "stylesheet", href: "/static/viewer.css" }));
  document.body.className = "of-study";
  const main = el("main", { className: "study" });
  document.body.append(main);
  const { showStudy } = await import("./study.js");
  await showStudy(main, { me: { role: "radiologist", account: "" }, id, atNode: false }).catch((error) => main.append(el("p", { role: "alert" }, error.message)));
}

const shown = /^\/study\/(\w+)$/.exec(location.pathname);
if (shown) showViewer(shown[1]); else showPages();

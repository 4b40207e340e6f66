// The worklist: studies to be read, most urgent first, as the node knows them now.

import { ask } from "./api.js";
import { isTyping, showHelp } from "./help.js";
import { make } from "./viewer.js";
import { DASH, empty, pill, since, standing, timeText, unanswered } from "./words.js";

const RANKS = ["emergency", "urgent", "routine", "background"];
const HOURS = { 24: "24 hours", 168: "7 days", 744: "31 days", 8760: "one year" };
const FALLBACK_MS = 20000; // between two looks where the node cannot tell of changes
const COLUMNS = [
  { name: "Priority", of: (row) => RANKS.indexOf(row.priority) },
  { name: "Patient", of: (row) => row.patient ?? "" },
  { name: "Study", of: (row) => `${row.modality ?? ""} ${row.description ?? ""}` },
  { name: "Finding", of: (row) => row.finding || unanswered(row) || row.because || "" },
  { name: "Waiting", of: (row) => -Date.parse(row.received_at) },
  { name: "State", of: standing },
];

export async function showWorklist(main) {
  const view = { rows: [], sort: "Priority", falls: false, text: "", state: "", priority: "", hours: kept("hours", "24") };
  const search = make("input", { type: "search", placeholder: "Patient, study, finding", ariaLabel: "Search" });
  const states = picker("State", view, "state", show), priorities = picker("Priority", view, "priority", show);
  const hours = make("select", { ariaLabel: "Period" }, ...Object.entries(HOURS).map(([value, text]) => make("option", { value, text })));
  const count = make("span", { className: "faint", role: "status" });
  const body = make("tbody"), heads = make("tr"), holder = make("div", { className: "scroll" });
  const list = make("table", { ariaLabel: "Worklist" }, make("thead", {}, heads), body);
  holder.append(list);
  hours.value = view.hours;
  main.append(make("div", { className: "bar" }, make("h1", { text: "Worklist" }), search, states.box, priorities.box, hours, count), holder);

  search.addEventListener("input", () => { view.text = search.value.toLowerCase(); show(); });
  hours.addEventListener("change", () => { view.hours = hours.value; keep("hours", hours.value); load(); });

  for (const { name } of COLUMNS) {
    const sort = make("button", { type: "button", className: "sort", text: name });
    sort.addEventListener("click", () => {
      view.falls = view.sort === name && !view.falls;
      view.sort = name;
      show();
    });
    heads.append(make("th", { scope: "col", data: { column: name.toLowerCase() } }, sort));
  }

  function show() {
    const column = COLUMNS.find(({ name }) => name === view.sort);
    const wanted = view.rows.filter((row) => isWanted(row, view));
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    wanted.sort((a, b) => (view.falls ? -1 : 1) * compare(column.of(a), column.of(b)) || compare(a.received_at, b.received_at));
    const isRanked = view.rows.some((row) => row.priority !== "routine");
    list.classList.toggle("unranked", !isRanked);
    [...heads.children].forEach((head, place) => {
      const isThis = COLUMNS[place].name === view.sort;
      head.setAttribute("aria-sort", isThis ? (view.falls ? "descending" : "ascending") : "none");
    });
    const focused = document.activeElement?.dataset?.study;
    body.replaceChildren(...wanted.map(line));
    if (focused) [...body.children].find((one) => one.dataset.study === focused)?.focus({ preventScroll: true });
    count.textContent = `${wanted.length === view.rows.length ? "" : `${wanted.length} of `}${view.rows.length} ${view.rows.length === 1 ? "study" : "studies"}`;
    holder.querySelector(".empty")?.remove();
    if (!wanted.length) holder.append(empty(view.rows.length ? "No study fits the filter." : "No study has come in this period."));
    try {
      sessionStorage.setItem("hilum-order", JSON.stringify(wanted.map((row) => row.study))); // where `n` goes on
    } catch { /* a browser that keeps nothing */ }
  }

  async function load(isBackground = false) {
    const answer = await ask(`/api/worklist?limit=1000&hours=${view.hours}`, { isBackground });
    view.rows = answer.rows;
    states.fill(new Set(view.rows.map(standing)));
    priorities.fill(new Set(RANKS.filter((name) => view.rows.some((row) => row.priority === name))));
    priorities.box.hidden = !view.rows.some((row) => row.priority !== "routine");
    show();
  }

  document.addEventListener("keydown", (event) => onKey(event, body, search));
  await load();
  body.firstElementChild?.focus({ preventScroll: true });
  listen(load);
  setInterval(() => {
    for (const one of body.querySelectorAll("[data-since]")) one.textContent = since(one.dataset.since);
  }, 30000);
}

function line(row) {
  const href = `/study/${row.study}`;
  const open = () => location.assign(href);
  const waiting = make("span", { text: since(row.received_at), title: timeText(row.received_at), data: { since: row.received_at } });
  const study = make("span", { text: [row.modality, row.description].filter(Boolean).join(" \u00b7 ") || DASH });
  const finding = make("span", { className: row.finding ? "" : "faint", text: row.finding || unanswered(row) || row.because || DASH, title: row.because ?? "" });
  if (row.is_corrected) finding.append(make("small", { className: "corrected", text: "corrected by a person" }));
  if (row.finding && row.because && row.because !== row.finding) finding.append(make("small", { text: row.because }));
  const cells = [
    pill(row.priority, row.priority), make("a", { href, tabIndex: -1, text: row.patient || "no name" }), study, finding, waiting,
    pill(standing(row), standing(row)),
  ];
  const made = make("tr", { tabIndex: 0, data: { study: row.study, state: row.state, priority: row.priority } });
  made.append(...cells.map((cell, place) => make("td", { data: { column: COLUMNS[place].name.toLowerCase() } }, cell)));
  made.addEventListener("click", (event) => event.target.closest("a") || open());
  made.addEventListener("keydown", (event) => event.key === "Enter" && event.target === made && open());
  return made;
}

function isWanted(row, view) {
  if ((view.state && standing(row) !== view.state) || (view.priority && row.priority !== view.priority)) return false;
  const words = [row.patient, row.description, row.modality, row.finding, row.because, row.reason, row.study].join(" ").toLowerCase();
  return view.text.split(/\s+/).every((word) => words.includes(word));
}

function picker(name, view, field, show) {
  const box = make("select", { ariaLabel: name });
  box.addEventListener("change", () => { view[field] = box.value; show(); });
  const fill = (values) => {
    const options = [make("option", { value: "", text: `${name}: all` }), ...[...values].map((value) => make("option", { value, text: value }))];
    box.replaceChildren(...options);
    box.value = values.has(view[field]) ? view[field] : (view[field] = "");
  };
  return { box, fill };
}

function onKey(event, body, search) {
  if (event.key === "Escape" && event.target === search) return body.firstElementChild?.focus();
  if (isTyping(event) && !(event.target === search && event.key === "ArrowDown")) return;
  const rows = [...body.children], at = rows.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e6, End: 1e6 }[event.key];
  if (step && rows.length) {
    event.preventDefault();
    rows[Math.min(rows.length - 1, Math.max(0, at + step))].focus();
  } else if (event.key === "/") {
    event.preventDefault();
    search.focus();
  } else if (event.key === "?") showHelp();
}

// The node tells when the list has changed; where it cannot, the page looks from time to time.
function listen(load) {
  let waiting = null;
  const soon = () => { waiting ??= setTimeout(() => { waiting = null; load(true).catch(() => {}); }, 200); };
  const events = new EventSource("/api/worklist/events");
  let fallback = null;
  events.addEventListener("worklist", soon);
  events.addEventListener("open", () => { fallback = clearInterval(fallback); soon(); });
  events.addEventListener("error", () => { fallback ??= setInterval(soon, FALLBACK_MS); });
  window.addEventListener("pagehide", () => events.close());
}

function kept(name, otherwise) {
  try {
    return localStorage.getItem(`hilum-${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`hilum-${name}`, value);
  } catch { /* a browser that keeps nothing */ }
}

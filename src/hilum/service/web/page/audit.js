// The audit: what happened on the node, the newest first.

import { ask } from "./api.js";
import { isTyping, showHelp } from "./help.js";
import { button, make } from "./viewer.js";
import { DASH, empty, pill, timeText } from "./words.js";

const AT_ONCE = 200;

const FILTERS = { action: "Action", account: "Person", patient: "Patient's pseudonym", study: "Study UID", since: "From", until: "Until" };

export async function showAudit(main) {
  const fields = Object.entries(FILTERS).map(([name, text]) => {
    const isTime = name === "since" || name === "until";
    const input = make("input", { name, type: isTime ? "datetime-local" : "search", placeholder: text, ariaLabel: text });
    input.addEventListener("change", () => load(null));
    return isTime ? make("label", { className: "check" }, text, input) : input;
  });
  const body = make("tbody"), holder = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Audit" });
  const heads = ["Number", "At", "Who", "What happened", "Patient", "Outcome"];
  const head = make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { text, scope: "col" }))));
  holder.append(make("table", { ariaLabel: "Audit", className: "audit" }, head, body));
  const more = button("Older events", () => load(last));
  let last = null;
  const bar = make("div", { className: "bar" }, make("h1", { text: "Audit" }), ...fields);
  main.append(bar, holder, more);
  document.addEventListener("keydown", (event) => event.key === "?" && !isTyping(event) && showHelp());

  async function load(after) {
    const wanted = new URLSearchParams({ limit: AT_ONCE });
    if (after !== null) wanted.set("after", after);
    for (const { name, value, type } of bar.querySelectorAll("input"))
      if (value.trim()) wanted.set(name, type === "search" ? value.trim() : new Date(value).toISOString());
    const { rows } = await ask(`/api/audit?${wanted}`);
    const lines = rows.map(line);
    if (after === null) body.replaceChildren(...lines);
    else body.append(...lines);
    last = rows.at(-1)?.sequence ?? last;
    more.hidden = rows.length < AT_ONCE;
    holder.querySelector(".empty")?.remove();
    if (!body.children.length) holder.append(empty("No event fits."));
  }

  await load(null);
}

function line(row) {
  const who = make("span", {}, row.actor || DASH, make("small", { text: [row.role, row.address].filter(Boolean).join(", ") }));
  const { study, ...others } = row.detail ?? {}, thing = row.object.replace(/^\[(.*)\]$/, "settings of $1");
  const known = study && study !== row.object ? { study, ...others } : others;
  const what = make("span", {}, `${row.action[0].toUpperCase()}${row.action.slice(1)}: ${thing}`, make("small", { text: sentence(known) }));
  const cells = [String(row.sequence), timeText(row.at), who, what, row.patient ?? DASH, pill(row.outcome, row.outcome === "success" ? "done" : "aside")];
  return make("tr", { title: `hash ${row.hash ?? DASH}` }, ...cells.map((cell, place) => make("td", { className: place < 2 ? "short" : "" }, cell)));
}

// What else is known of an event, in words; of a change of settings what was and what is.
function sentence({ old, new: now, ...others }) {
  const names = Object.keys({ ...old, ...now }).filter((name) => words(old?.[name]) !== words(now?.[name]));
  const changes = old && now ? names.map((name) => `${name.replaceAll("_", " ")} was ${words(old[name])} and is ${words(now[name])}`)
    : now ? [`new, with ${words(now)}`] : old ? [`gone; it had ${words(old)}`] : [];
  const text = [...changes, ...(Object.keys(others).length ? [words(others)] : [])].join("; ");
  return text && `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function words(value) {
  if (value === null || value === undefined || value === "") return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(words).join(" and ") || "none";
  if (typeof value !== "object") return String(value).replace(/^[a-z]+(_[a-z]+)+$/, (name) => name.replaceAll("_", " "));
  return Object.entries(value).map(([name, one]) => `${name.replaceAll("_", " ")} ${words(one)}`).join(", ") || "none";
}

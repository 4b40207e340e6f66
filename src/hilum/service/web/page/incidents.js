// Incidents: what went wrong with results, why, what was done, and how that was checked.

import { card, field, making, picked, value } from "./accounts.js";
import { ask } from "./api.js";
import { isTyping, showHelp } from "./help.js";
import { button, make } from "./viewer.js";
import { DASH, empty, pill, table } from "./words.js";

const KINDS = ["possible", "none", "decline", "death", "public threat"];
const TEXTS = { harm: "What happened", version: "Version of the model", cause: "Cause", action: "Action", checked: "Check of the action" };

export async function showIncidents(main, { me }) {
  const list = make("div"), said = make("div", { role: "status" }), holder = make("div", { className: "cards" });
  const mayAdd = me.role !== "viewer", mayChange = me.role === "administrator";
  main.append(make("div", { className: "bar" }, make("h1", { text: "Incidents" })), list, said, holder);
  document.addEventListener("keydown", (event) => event.key === "?" && !isTyping(event) && showHelp());

  // A form for a new incident, or for one that is there.
  function edit(row = null) {
    const day = field("Known since", { type: "date", required: true, value: row?.known_on ?? new Date().toISOString().slice(0, 10) });
    const kind = picked("Harm", KINDS, row?.kind), study = field("Study (UID)", { pattern: "[0-9.]{1,64}" });
    const texts = Object.entries(TEXTS).map(([name, words]) => [name, field(words, { value: row?.[name] ?? "", required: name === "harm", maxLength: 10000 })]);
    const fields = [day, kind, ...texts.map(([, one]) => one), ...(row ? [] : [study])];
    const form = making(fields, row ? "Save" : "Add incident", async () => {
      const body = { known_on: value(day), kind: value(kind), ...Object.fromEntries(texts.map(([name, one]) => [name, value(one)])) };
      if (!row && value(study)) body.study = value(study);
      await ask(row ? `/api/incidents/${row.incident}` : "/api/incidents", { method: row ? "PUT" : "POST", body });
      edit();
      await load();
    }, said);
    holder.replaceChildren(card(row ? `Incident ${row.incident}` : "New incident", form));
    if (row) form.querySelector("input").focus();
  }

  async function load() {
    const { rows } = await ask("/api/incidents?limit=1000");
    const cells = (row) => {
      const isOpen = !(row.cause && row.action && row.checked);
      const change = mayChange ? button("Change", () => edit(row), { ariaLabel: `Change incident ${row.incident}` }) : "";
      const study = row.study ? make("a", { href: `/study/${row.study}`, text: "study" }) : DASH;
      return [String(row.incident), pill(isOpen ? "open" : "settled", isOpen ? "waiting" : "done"), row.known_on, row.kind, row.harm, row.version || DASH, row.cause || DASH, row.action || DASH, row.checked || DASH, study, change];
    };
    const heads = ["Number", "State", "Known since", "Harm", "What happened", "Version", "Cause", "Action", "Check", "Study", "Change"];
    list.replaceChildren(rows.length ? table("Incidents", heads, rows.map(cells)) : empty("No incident was stated."));
  }

  await load();
  if (mayAdd) edit();
}

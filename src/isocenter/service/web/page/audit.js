// The audit: what happened on the node, the newest first.

import { ask } from "./api.js";
import { isTyping, showHelp } from "./help.js";
import { button, make } from "./viewer.js";
import { DASH, empty, pill, timeText } from "./words.js";

const AT_ONCE = 200;

export async function showAudit(main) {
  const action = make("input", { type: "search", placeholder: "Action", ariaLabel: "Action" });
  const account = make("input", { type: "search", placeholder: "Account", ariaLabel: "Account" });
  const body = make("tbody"), holder = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Audit" });
  const heads = ["Number", "At", "Account", "Role", "Address", "Action", "Object", "Patient", "Outcome", "Detail"];
  const head = make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { text, scope: "col" }))));
  holder.append(make("table", { ariaLabel: "Audit", className: "audit" }, head, body));
  const more = button("Older events", () => load(last));
  let last = null;
  main.append(make("div", { className: "bar" }, make("h1", { text: "Audit" }), action, account), holder, more);
  for (const field of [action, account]) field.addEventListener("change", () => load(null));
  document.addEventListener("keydown", (event) => event.key === "?" && !isTyping(event) && showHelp());

  async function load(after) {
    const wanted = new URLSearchParams({ limit: AT_ONCE });
    if (after !== null) wanted.set("after", after);
    if (action.value.trim()) wanted.set("action", action.value.trim());
    if (account.value.trim()) wanted.set("account", account.value.trim());
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
  const detail = make("code", { text: Object.keys(row.detail ?? {}).length ? JSON.stringify(row.detail) : "" });
  const cells = [
    String(row.sequence), timeText(row.at), row.actor || DASH, row.role, row.address || DASH, row.action, row.object, row.patient ?? DASH,
    pill(row.outcome, row.outcome === "success" ? "done" : "aside"), detail,
  ];
  const made = make("tr", { title: `hash ${row.hash ?? DASH}` });
  made.append(...cells.map((cell) => make("td", {}, cell)));
  return made;
}

// Accounts of people and tokens of machines, for administrators; and everybody's own password.

import { ApiError, ask } from "./api.js";
import { button, make } from "./viewer.js";
import { DASH, empty, notice, pill, table, timeText } from "./words.js";

const PEOPLE = ["viewer", "radiologist", "administrator"], MACHINES = ["service", "viewer", "radiologist", "administrator"];
const DAYS = 90; // of a token, unless another last day is given

export async function showAccounts(main, me) {
  const cards = make("div", { className: "cards" });
  main.append(cards);
  if (!me.account) return cards.append(card("Accounts", empty("There is none. Start the node with HILUM_ADMIN_PASSWORD, and log in as administrator.")));
  if (me.role === "administrator") cards.append(await accounts(me), await tokens());
  cards.append(ownPassword());
}

async function accounts(me) {
  const list = make("div"), said = make("div", { role: "status" });
  const account = field("Account", { required: true, maxLength: 64, autocomplete: "off" }), role = picked("Role", PEOPLE);
  const form = making([account, role], "Make account", async () => {
    const made = await ask("/api/accounts", { method: "POST", body: { account: value(account), role: value(role) } });
    tell(said, `Password of ${made.account}, shown once:`, made.password);
    form.reset();
    await load();
  }, said);

  const change = (row, body, text) => button(text, () => doing(said, async () => {
    const made = await ask(`/api/accounts/${encodeURIComponent(row.account)}`, { method: "PUT", body });
    if (made.password) tell(said, `New password of ${made.account}, shown once:`, made.password);
    await load();
  }), { ariaLabel: `${text}: ${row.account}` });

  async function load() {
    const { rows } = await ask("/api/accounts");
    const cells = (row) => {
      const buttons = row.openid ? [] : [change(row, { new_password: true }, "New password")];
      if (row.account !== me.account) buttons.push(change(row, { ended: !row.ended }, row.ended ? "Begin again" : "End"));
      const roles = picked("", PEOPLE, row.role);
      const select = roles.querySelector("select");
      select.setAttribute("aria-label", `Role of ${row.account}`);
      select.disabled = row.account === me.account;
      select.addEventListener("change", () => doing(said, async () => {
        await ask(`/api/accounts/${encodeURIComponent(row.account)}`, { method: "PUT", body: { role: select.value } });
        await load();
      }));
      return [row.account, select, row.ended ? pill("ended", "aside") : pill(row.openid ? "OpenID" : "password", "done"), make("span", { className: "inline" }, ...buttons)];
    };
    list.replaceChildren(rows.length ? table("Accounts", ["Account", "Role", "State", "Change"], rows.map(cells)) : empty("There is no account."));
  }

  await load();
  return card("Accounts", list, form, said);
}

async function tokens() {
  const list = make("div"), said = make("div", { role: "status" });
  const later = new Date(Date.now() + DAYS * 86400000).toISOString().slice(0, 10);
  const name = field("Machine", { required: true, maxLength: 64 }), role = picked("Role", MACHINES), last = field("Last day", { type: "date", required: true, value: later });
  const form = making([name, role, last], "Make token", async () => {
    const made = await ask("/api/tokens", { method: "POST", body: { name: value(name), role: value(role), last_day: value(last) } });
    tell(said, `Token of ${made.name}, shown once:`, made.secret);
    await load();
  }, said);

  async function load() {
    const { rows } = await ask("/api/tokens");
    const end = (row) => button("Delete", () => doing(said, async () => {
      await ask(`/api/tokens/${row.token}`, { method: "DELETE" });
      await load();
    }), { ariaLabel: `Delete the token of ${row.name}` });
    const cells = (row) => [row.name, row.role, row.ended ? pill("ended", "aside") : row.ends_at ? timeText(row.ends_at) : DASH, end(row)];
    list.replaceChildren(rows.length ? table("Tokens", ["Machine", "Role", "Ends", "Change"], rows.map(cells)) : empty("No machine has a token."));
  }

  await load();
  return card("Tokens", list, form, said);
}

function ownPassword() {
  const said = make("div", { role: "status" });
  const old = field("Old password", { type: "password", required: true, autocomplete: "current-password" });
  const fresh = field("New password", { type: "password", required: true, autocomplete: "new-password" });
  const form = making([old, fresh], "Change", async () => {
    await ask("/api/me/password", { method: "PUT", body: { old: value(old), new: value(fresh) } });
    location.reload(); // the session is a new one
  }, said);
  return card("Your password", form, said);
}

export function card(name, ...content) {
  return make("section", { className: "card" }, make("h2", { text: name }), ...content);
}

export function field(name, options) {
  return make("label", {}, make("span", { text: name }), make("input", options));
}

export function picked(name, values, chosen = values[0]) {
  const select = make("select", {}, ...values.map((value) => make("option", { value, text: value, selected: value === chosen })));
  return make("label", {}, ...(name ? [make("span", { text: name })] : []), select);
}

export const value = (label) => label.querySelector("input, select").value;

export function making(fields, text, onSubmit, said) {
  const form = make("form", {}, ...fields, make("button", { type: "submit", text }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    doing(said, onSubmit);
  });
  return form;
}

async function doing(said, work) {
  said.replaceChildren();
  try {
    await work();
  } catch (error) {
    said.replaceChildren(notice(error instanceof ApiError ? error.words : String(error.message), "error"));
  }
}

function tell(said, text, secret) {
  said.replaceChildren(make("p", { className: "notice" }, make("span", { text: `${text} ` }), make("span", { className: "secret", text: secret })));
}

// Blind reads: studies that a person reads before the answer is shown, and the form of such a read.

import { ask } from "./api.js";
import { isTyping, showHelp } from "./help.js";
import { button, make } from "./viewer.js";
import { DASH, empty, notice, table, timeText } from "./words.js";

export async function showBlind(main) {
  const { rows } = await ask("/api/blind");
  main.append(make("div", { className: "bar" }, make("h1", { text: "Blind reads" }), make("span", { className: "faint", role: "status", text: `${rows.length} waiting` })));
  main.append(notice("These studies were sampled at random. Their answers are hidden from you until you have read them."));
  document.addEventListener("keydown", (event) => event.key === "?" && !isTyping(event) && showHelp());
  if (!rows.length) return void main.append(empty("No study waits to be read blind by you."));
  const cells = rows.map((row) => [make("a", { href: `/study/${row.study}`, text: row.description || row.study }), row.date || DASH, row.labels.join(", "), timeText(row.sampled_at)]);
  main.append(table("Blind reads", ["Study", "Date", "Asked", "Sampled"], cells));
}

// What is asked of a study whose answers are hidden. onKept: called once the read is kept
export function blindForm(read, onKept) {
  const fields = read.labels.map((label) => ({ label, field: field(read, label) }));
  const failure = make("div", { ariaLive: "polite" });
  const keep = button("Keep my reading", async () => {
    const values = valuesOf(read, fields);
    if (!values) return failure.replaceChildren(notice("Answer every question first.", "warning"));
    keep.disabled = true;
    try {
      await ask(`/api/blind/${read.job}`, { method: "POST", body: values });
      await onKept();
    } catch (error) {
      failure.replaceChildren(notice(error.words ?? error.message, "error"));
      keep.disabled = false;
    }
  }, { className: "primary" });
  const words = read.exclusive ? "Which of these is present?" : read.numbers ? "How large is each?" : "Which of these are present?";
  const rows = fields.map(({ label, field: { box } }) => make("label", { className: "check" }, box, make("span", { text: label })));
  return make("section", { className: "judge", ariaLabel: "Blind read" }, notice("This study was sampled to be read blind: its answer is hidden until you have read it."), make("h3", { text: words }), ...rows, keep, failure);
}

function field(read, label) {
  if (read.numbers) {
    const box = make("input", { type: "number", step: "any", ariaLabel: label });
    return { box, value: () => (box.value === "" ? null : Number(box.value)) };
  }
  if (read.exclusive) {
    const box = make("input", { type: "radio", name: `blind-${read.job}` });
    return { box, value: () => Number(box.checked) };
  }
  const options = [["", "?"], ["1", "present"], ["0", "absent"]].map(([value, text]) => make("option", { value, text }));
  const box = make("select", { ariaLabel: label }, ...options);
  return { box, value: () => (box.value === "" ? null : Number(box.value)) };
}

// {label: value}, or null where a question is open.
function valuesOf(read, fields) {
  const values = Object.fromEntries(fields.map(({ label, field: { value } }) => [label, value()]));
  const given = Object.values(values);
  return given.includes(null) || (read.exclusive && !given.includes(1)) ? null : values;
}

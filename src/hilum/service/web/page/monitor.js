// Monitoring: alerts, what they hold, changes of packages, and of each model its baseline, watches and performance.

import { ApiError, ask } from "./api.js";
import { isTyping, showHelp } from "./help.js";
import { card, listed } from "./node.js";
import { button, make } from "./viewer.js";
import { DASH, empty, intervalTexts, notice, numberText, pill, table, timeText } from "./words.js";

const LOOK_MS = 30000;

export async function showMonitor(main, { me }) {
  const verdict = make("p", { className: "verdict", role: "status" }), said = make("div", { role: "status" }), content = make("div", { className: "cards" });
  const reason = make("input", { type: "text", id: "reason", placeholder: "Reason", ariaLabel: "Reason of what you do", maxLength: 1000 });
  const mayAct = ["radiologist", "administrator"].includes(me.role), isKeeper = me.role === "administrator";
  main.append(make("div", { className: "bar" }, make("h1", { text: "Monitoring" }), ...(mayAct ? [reason] : [])), verdict, said, content);
  document.addEventListener("keydown", (event) => event.key === "?" && !isTyping(event) && showHelp());

  const act = (text, path, what, body) => button(text, async () => {
    if (!body && !reason.value.trim()) {
      said.replaceChildren(notice("Write a reason first.", "error"));
      return reason.focus();
    }
    try {
      await ask(path, { method: "POST", body: body ?? { reason: reason.value.trim() } });
      said.replaceChildren();
      reason.value = "";
    } catch (error) {
      said.replaceChildren(notice(error instanceof ApiError ? error.words : String(error.message), "error"));
    }
    await load();
  }, { ariaLabel: `${text}: ${what}` });

  const alertButtons = (one) => !mayAct || ["closed", "cleared"].includes(one.state) ? [one.actor, one.reason].filter(Boolean).join(": ") : make("span", { className: "inline" },
    ...(one.state === "open" ? [act("Acknowledge", `/api/alerts/${one.n}/acknowledge`, `alert ${one.n}`)] : []),
    act("Close", `/api/alerts/${one.n}/close`, `alert ${one.n}`));

  async function load(isBackground = false) {
    const may = (path) => ask(path, { isBackground }).catch((error) => ({ failure: error instanceof ApiError ? error.words : String(error.message) }));
    const [seen, alerts, changes] = await Promise.all([may("/api/monitor"), may("/api/alerts?limit=50"), may("/api/changes")]);
    verdict.textContent = seen.failure ?? `${seen.verdict}${seen.at ? `; last change seen ${timeText(seen.at)}` : ""}`;
    content.replaceChildren(
      card("Alerts", listed(alerts, "Alerts", ["Alert", "At", "Severity", "Model", "Watch", "Where", "Since", "State", "Because", "What to do", ""], (one) =>
        [String(one.n), timeText(one.at), pill(one.severity, one.severity === "urgent" ? "aside" : "waiting"), one.model, `${one.watch} (${one.kind})`,
          one.scope || "everywhere", timeText(one.since), one.state, one.because || DASH, one.action, alertButtons(one)], "There was no alert.")),
      ...(seen.holds?.length ? [card("Held", table("Held", ["Model", "Action", "Because", "Since", ""], seen.holds.map((one) =>
        [one.model, pill(one.action, "aside"), one.undone_by ? `${one.because}; ${one.undone_by} agrees to go on` : one.because, timeText(one.since), mayAct ? act("Undo", `/api/monitor/holds/${one.n}/undo`, `${one.action} of ${one.model}`) : ""])))] : []),
      ...(changes.rows?.length ? [card("Changes", packages(changes.rows))] : []),
      ...(changes.rows ?? []).filter((one) => one.figures.length).map((one) => card(`Change ${one.n}, ${one.mode}, of ${one.model}`, figures(one))),
      ...(seen.models ?? []).flatMap((one) => [card(`${one.model}: ${one.verdict}`, baseline(one)), ...(one.site_verdict ? [card(`Is this site what ${one.model} was made on?`, make("p", { text: `${one.site_verdict}.` }), site(one))] : []), ...(one.bounds.length ? [card(`Bounds of ${one.model}`, bounds(one))] : []), card(`Watches of ${one.model}`, watches(one)), card(`Performance of ${one.model}`, performance(one))]),
    );
  }

  function packages(rows) {
    const buttons = (one) => !mayAct || one.state === "ended" ? "" : make("span", { className: "inline" },
      ...(one.state === "waiting" ? [act("Approve", `/api/changes/${one.n}/approve`, `change ${one.n}`, {})] : []),
      act(one.mode === "live" && one.state === "in force" ? "Roll back" : "End", `/api/changes/${one.n}/end`, `change ${one.n}`));
    return table("Changes", ["Change", "Model", "Package", "Answers", "State", "Since", "Approved by", "Because", ""], rows.map((one) =>
      [String(one.n), one.model, one.package.slice(0, 12), one.mode === "arm" ? `${numberText(100 * one.share)} % of the patients until ${timeText(one.until)}` : one.mode,
        one.state, timeText(one.ended ?? one.began ?? one.asked_at), one.approvals.map(({ account, role }) => `${account} (${role})`).join(", ") || DASH, one.because, buttons(one)]));
  }

  function baseline(one) {
    const { state, cases, wanted, frozen_at, frozen_by } = one.baseline;
    const stands = state === "frozen" ? `frozen on ${timeText(frozen_at)} by ${frozen_by || "this machine"}, ${cases} cases` : `${state}, ${cases} of ${wanted} cases`;
    const rows = [["Version", one.model_version || DASH], ["Baseline", stands], ["Watched cases", String(one.cases)], ["Cases between false alarms", one.run_length ? numberText(one.run_length) : DASH]];
    const facts = make("dl", { className: "facts" }, ...rows.flatMap(([name, text]) => [make("dt", { text: name }), make("dd", { text })]));
    const text = state === "frozen" ? `Freeze the newest ${wanted} cases instead` : `Freeze these ${wanted} cases`;
    const freezing = isKeeper && state !== "collecting" ? [act(text, "/api/monitor/baseline", one.model, { model: one.model })] : [];
    return make("div", {}, facts, ...(one.problem ? [notice(one.problem, "error")] : []), ...freezing);
  }

  await load();
  setInterval(() => document.hidden || document.activeElement === reason || load(true).catch(() => {}), LOOK_MS);
}

// Of the baseline, once: whether the site has changed since is what watches say.
function site({ site: rows }) {
  return table("Tests of the site", ["Compared with", "What", "Test", "Distance", "p (Holm)", "Patients here", "Patients there"], rows.map((one) =>
    [one.against, one.of, one.test, numberText(one.distance), numberText(one.p), String(one.patients), String(one.known)]));
}

// Watches of all cases, and levels that carry an alarm.
function watches({ drift }) {
  const rows = drift.filter((one) => !one.scope || one.alarm_at);
  if (!rows.length) return empty("Nothing is watched before a baseline is frozen and a case has followed it.");
  return table("Watches", ["Watch", "Kind", "Where", "Cases", "Log evidence", "Limit", "Alarm", "Since"], rows.map((one) =>
    [one.watch, one.kind, one.scope || "everywhere", String(one.cases), numberText(one.log_evidence), numberText(one.limit),
      one.alarm_at ? pill(timeText(one.alarm_at), "aside") : DASH, one.since ? timeText(one.since) : DASH]));
}

// Whether audited figures keep each bound; what crosses one on cases that were not audited is told apart.
function bounds({ bounds: rows }) {
  const kinds = { crossed: "aside", held: "done" };
  return table("Bounds", ["Bound", "At least", "Audited", "Because", "Reported, not audited, and below"], rows.map((one) =>
    [one.bound, numberText(one.at_least), pill(one.state, kinds[one.state] ?? "waiting"), one.because, one.reported || DASH]));
}

const SOURCES = { audited: "var(--accent)", reported: "var(--text)", estimated: "var(--faint)" }, WIDTH = 560, HEIGHT = 120, LEFT = 34, FLOOR = 102;

// A metric of all cases over time: dots on their intervals, its bound (dashed), and changes of software (dotted).
function course(name, rows, bound, changes) {
  const draw = (tag, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    made.textContent = text;
    return made;
  };
  const isBound = bound !== undefined, times = rows.map((one) => [Date.parse(one.from), Date.parse(one.to)]), first = Math.min(...times.flat()), last = Math.max(...times.flat());
  const values = rows.flatMap((one) => [one.value, one.low ?? one.value, one.high ?? one.value]).concat(isBound ? [bound] : []), least = Math.min(...values), most = Math.max(...values, least + 0.01);
  const across = (at) => LEFT + (WIDTH - LEFT - 8) * (at - first) / (last - first), up = (value) => FLOOR - (FLOOR - 14) * (value - least) / (most - least);
  const line = (x1, y1, x2, y2, stroke, dashes = "none") => draw("line", { x1, y1, x2, y2, stroke, "stroke-dasharray": dashes });
  const label = (x, y, text, anchor = "start") => draw("text", { x, y, fill: "var(--faint)", "font-size": 10, "text-anchor": anchor }, text);
  const image = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name} over time` });
  image.append(line(LEFT, FLOOR, WIDTH - 8, FLOOR, "var(--line)"), label(0, 16, numberText(most)), label(0, FLOOR, numberText(least)), label(LEFT, HEIGHT - 4, rows[0].from), label(WIDTH - 8, HEIGHT - 4, rows.at(-1).to, "end"));
  if (isBound) image.append(line(LEFT, up(bound), WIDTH - 8, up(bound), "var(--text)", "6 4"));
  for (const [at, words] of Object.entries(changes).map(([text, said]) => [Date.parse(text), said]).filter(([time]) => time >= first && time <= last))
    image.append(line(across(at), 4, across(at), FLOOR, "var(--faint)", "2 3"), label(across(at) + 3, 10, words));
  rows.forEach((one, n) => {
    const x = across((times[n][0] + times[n][1]) / 2), colour = SOURCES[one.source];
    image.append(...(one.low === null ? [] : [line(x, up(one.low), x, up(one.high), colour)]), draw("circle", { cx: x, cy: up(one.value), r: 3, fill: colour }));
  });
  const key = [...new Set(rows.map((one) => one.source))].map((one) => make("span", { className: one, text: `\u25cf ${one} ` }));
  return make("figure", { className: "course" }, make("figcaption", {}, `${name}: `, ...key, isBound ? `; dashed: bound ${numberText(bound)}` : ""), image);
}

// What has a bound, and areas, where there is more than one window.
function overTime({ performance: rows, bounds: limits, changes }) {
  const least = Object.fromEntries(limits.map((one) => [one.bound, one.at_least])), named = (one) => `${one.metric} of ${one.label}`;
  const known = rows.filter((one) => one.value !== null && !one.scope && (named(one) in least || one.metric === "auroc"));
  return [...new Set(known.map(named))].map((name) => [name, known.filter((one) => named(one) === name)])
    .filter(([, own]) => new Set(own.map((one) => one.from)).size > 1).map(([name, own]) => course(name, own, least[name], changes));
}

// Of a shadow or a split; the interval holds at every look.
function figures({ figures: rows }) {
  return table("Figures of a change", ["Metric", "Arm", "Value", "Cases", "Source"], rows.filter((one) => one.value !== null).map((one) => {
    const [value, low, high] = one.low === null ? [numberText(one.value)] : intervalTexts(one.value, one.low, one.high);
    return [one.metric, one.arm || DASH, low ? `${value} (${low} to ${high})` : value, String(one.cases ?? DASH), one.source || DASH];
  }));
}

function performance(one) {
  return make("div", {}, ...overTime(one), figuresOf(one));
}

function figuresOf({ performance: rows }) {
  const known = rows.filter((one) => one.value !== null);
  if (!known.length) return empty("No figure can be stated yet.");
  return table("Performance", ["Days", "Where", "Metric", "Label", "Value", "Cases", "Source"], known.map((one) => {
    const [value, low, high] = one.low === null ? [numberText(one.value)] : intervalTexts(one.value, one.low, one.high);
    return [`${one.from} to ${one.to}`, one.scope || "everywhere", one.metric, one.label, low ? `${value} (${low} to ${high})` : value, String(one.n ?? DASH), one.source];
  }));
}

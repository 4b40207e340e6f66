// Begins the page that the address names, inside the frame that all pages share.

import { ApiError, logOut, whoAmI } from "./api.js";
import { button, make } from "./viewer.js";
import { showAudit } from "./audit.js";
import { showBlind } from "./blind.js";
import { showHelp } from "./help.js";
import { showIncidents } from "./incidents.js";
import { showLogin } from "./login.js";
import { showMonitor } from "./monitor.js";
import { showNode } from "./node.js";
import { showStudy } from "./study.js";
import { showWorklist } from "./worklist.js";

const PAGES = [
  { at: /^\/$/, title: "Worklist", show: showWorklist },
  { at: /^\/study\/([0-9a-f.]+)$/, title: "Study", show: showStudy },
  { at: /^\/node$/, title: "Node", show: showNode },
  { at: /^\/monitor$/, title: "Monitor", show: showMonitor },
  { at: /^\/audit$/, title: "Audit", show: showAudit },
  { at: /^\/blind$/, title: "Blind", show: showBlind },
  { at: /^\/incidents$/, title: "Incidents", show: showIncidents },
];

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("hilum-theme", name); // where theme.js finds it
  } catch { /* a browser that keeps nothing */ }
}

function link(href, text) {
  const made = make("a", { href, text });
  if (location.pathname === href) made.setAttribute("aria-current", "page");
  return made;
}

function header(me) {
  const brand = make("a", { className: "brand", href: "/", text: "Hilum" });
  const readers = ["radiologist", "administrator"].includes(me.role) ? [link("/blind", "Blind reads")] : [];
  const links = [link("/", "Worklist"), ...readers, link("/node", "Node"), link("/monitor", "Monitor"), link("/incidents", "Incidents"), ...(me.role === "administrator" ? [link("/audit", "Audit")] : [])];
  const nav = make("nav", { ariaLabel: "Pages" }, ...links);
  const swap = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  const right = make("div", { className: "who" });
  if (me.account) right.append(make("span", { className: "faint", text: `${me.account}, ${me.role}` }));
  right.append(
    button("Help", () => showHelp(), { title: "Keys of this page (?)", className: "quiet" }),
    button("Theme", swap, { title: "Dark or light", className: "quiet" }),
  );
  if (me.account) right.append(button("Log out", async () => { await logOut().catch(() => {}); location.assign("/login"); }, { className: "quiet" }));
  return make("header", { className: "top" }, brand, nav, right);
}

async function start() {
  document.body.textContent = "";
  if (location.pathname === "/login") {
    document.title = "Log in \u2013 Hilum";
    return showLogin();
  }
  const page = PAGES.find(({ at }) => at.test(location.pathname)) ?? PAGES[0];
  document.title = `${page.title} \u2013 Hilum`;
  const me = await whoAmI();
  const main = make("main", { className: page.title.toLowerCase() });
  document.body.className = `of-${page.title.toLowerCase()}`;
  document.body.append(header(me));
  if (!me.account) {
    const words = "No account is set up: only this machine is served, and whoever sits at it is administrator.";
    document.body.append(make("p", { className: "ribbon", text: words }));
  }
  document.body.append(main);
  await page.show(main, { me, id: page.at.exec(location.pathname)[1] });
}

start().catch((error) => {
  if (error instanceof ApiError && error.status === 401) return;
  const text = error instanceof ApiError ? error.words : `The page has a fault: ${error.message}`;
  document.body.append(make("p", { className: "notice error", role: "alert", text }));
});

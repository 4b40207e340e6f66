// The page to log in.

import { ApiError, ask, logIn, nextPage } from "./api.js";
import { make } from "./viewer.js";

export async function showLogin() {
  const account = make("input", { name: "account", autocomplete: "username", required: true, spellcheck: false, autocapitalize: "none" });
  const password = make("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const failure = make("p", { className: "notice error", hidden: true });
  failure.setAttribute("role", "alert");
  const enter = make("button", { type: "submit", className: "primary", text: "Log in" });
  const form = make(
    "form",
    { className: "card" },
    make("h1", { text: "Hilum" }),
    make("label", {}, make("span", { text: "Account" }), account),
    make("label", {}, make("span", { text: "Password" }), password),
    failure,
    enter,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    enter.disabled = true;
    try {
      await logIn(account.value, password.value);
      location.assign(nextPage(location.search));
    } catch (error) {
      failure.textContent = error instanceof ApiError ? error.words : String(error.message);
      failure.hidden = false;
      password.value = "";
      password.focus();
    } finally {
      enter.disabled = false;
    }
  });
  document.body.append(make("main", { className: "login" }, form));
  account.focus();
  const ways = await ask("/api/login").catch(() => null);
  if (ways?.needed === false) return location.assign("/"); // only this machine is served, without accounts
  if (ways?.openid) {
    const href = `${ways.openid}?next=${encodeURIComponent(nextPage(location.search))}`;
    form.append(make("a", { className: "button", href, text: "Log in with the hospital's account" }));
    for (const one of ways.password ? [] : form.querySelectorAll("label, button")) one.hidden = true;
  }
}

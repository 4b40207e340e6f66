// Questions to the node, and what it answers.

let csrf = "", account = null;

export class ApiError extends Error {
  constructor(status, { problem = "", where = "", remedy = "" }) {
    super(problem || `the node answers ${status}`);
    Object.assign(this, { status, where, remedy });
  }

  get words() {
    return [this.message, this.remedy].filter(Boolean).map((text) => text[0].toUpperCase() + text.slice(1)).join(". ") + ".";
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { problem: "the node does not answer", remedy: "try again in a moment" });
  }
  if (response.ok) return response;
  if (response.status === 401 && location.pathname !== "/login") goToLogin();
  throw new ApiError(response.status, await response.json().catch(() => ({})));
}

export function goToLogin() {
  location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
}

// The page to go on to: one of ours, by its path alone, so that no link leads people who log in elsewhere.
export function nextPage(search) {
  const wanted = new URLSearchParams(search).get("next") ?? "/";
  return /^\/(node|audit|blind|monitor|incidents|study\/[0-9.]{1,64}|study\/[0-9a-f]{32})?$/.test(wanted) ? wanted : "/";
}

// isBackground: whether the page asks by itself, so that a session ends where nobody sits at it
export async function ask(path, { method = "GET", body, isBackground = false } = {}) {
  const headers = method === "GET" ? {} : { "X-CSRF-Token": csrf };
  if (isBackground) headers["X-Background"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const options = { method, headers, body: body === undefined ? undefined : JSON.stringify(body) };
  const response = await answer(path, options).catch(async (error) => {
    // Whoever has logged in again in another window has a new session, of which this page does not know.
    const before = csrf;
    if (error.status !== 403 || method === "GET" || account === null || (await whoAmI(), csrf === before)) throw error;
    return answer(path, { ...options, headers: { ...headers, "X-CSRF-Token": csrf } });
  });
  return (response.headers.get("content-type") ?? "").includes("json") ? response.json() : null;
}

export async function askBytes(path, signal) {
  const response = await answer(path, { signal });
  return { headers: response.headers, buffer: await response.arrayBuffer() };
}

// Who is here: {account, role}. Raises where it is another person than before.
export async function whoAmI() {
  const me = await (await answer("/api/me", {})).json();
  if (account !== null && me.account !== account) throw new ApiError(403, { problem: "somebody else has logged in", remedy: "load this page again" });
  [account, csrf] = [me.account, me.csrf ?? ""];
  return me;
}

export const logIn = (name, password) => ask("/api/login", { method: "POST", body: { account: name, password } });

export const logOut = () => ask("/api/logout", { method: "POST" });

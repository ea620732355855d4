// The server's routes that the page uses. A token, where one is needed, is kept for as long as the tab.

const TOKEN = "warmwire.token";
const SHOWN = 200; // turns that have ended, the newest; older ones are shown as far as the browser kept them
const PAGES = 100; // of them that are looked through, the oldest first; there are as many as 24 hours have brought
const PAGE = 100; // turns

/** The server said no; `message` is what it said. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || "The server refused it.");
    this.status = problem.status;
    /** Whether it is no answer to the request, but one of a server that is starting, leaving or busy. */
    this.passing = [502, 503, 504].includes(problem.status);
    this.title = problem.title;
  }
}

export async function refusalOf(response) {
  const fallback = { title: `The server answered ${response.status}.` };
  const problem = await response.json().catch(() => ({}));
  return new Refused({ ...fallback, ...problem, status: response.status });
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** Fetches with the token, if there is one. */
function ask(path, { headers = {}, ...rest } = {}) {
  const known = token.get();
  const bearer = known ? { Authorization: `Bearer ${known}` } : {};
  return fetch(path, { ...rest, headers: { ...headers, ...bearer } });
}

async function asked(path, how) {
  const response = await ask(path, how);
  if (!response.ok) throw await refusalOf(response);
  return response;
}

const at = (session, rest = "") => `/v1/sessions/${encodeURIComponent(session)}${rest}`;

function posted(path, body, headers = {}, signal) {
  const json = { "Content-Type": "application/json", ...headers };
  return asked(path, { method: "POST", headers: json, body: JSON.stringify(body), signal });
}

/** Sends a message; the same key again is the same message. Returns its turn. */
export async function send(session, message, key, signal) {
  const answer = await posted(at(session, "/messages"), { message }, { "Idempotency-Key": key }, signal);
  return (await answer.json()).turn;
}

export function interrupt(session, turn) {
  return posted(at(session, "/interrupt"), { turn });
}

/** Allows or denies what the CLI asks for; another answer may have been faster. */
export async function permit(session, turn, request, allow) {
  const path = at(session, `/permissions/${encodeURIComponent(request)}`);
  return posted(path, { allow, turn });
}

/** Deletes a session; one that the server does not know is deleted. */
export async function remove(session) {
  const response = await ask(at(session), { method: "DELETE" });
  if (!response.ok && response.status !== 404) throw await refusalOf(response);
}

/** Opens the stream of a session's events. */
export function watch(session, lastId, signal) {
  const headers = lastId ? { "Last-Event-ID": lastId } : {};
  return ask(at(session, "/events"), { headers, signal });
}

/** What the server knows of a session: messages that wait or run, and turns that have ended, in their order. */
export async function known(session) {
  const waiting = await standing(session); // first: what ends meanwhile is in the other list
  const ended = [];
  let after = 0;
  for (let page = 0; page < PAGES && after !== null; page += 1) {
    const answer = await asked(at(session, `/turns?limit=${PAGE}&after=${after}`));
    const { turns, next } = await answer.json();
    ended.splice(0, ended.length, ...[...ended, ...turns].slice(-SHOWN));
    after = next;
  }
  return { waiting, ended };
}

async function standing(session) {
  const answer = await asked(at(session, "?may_be_new=true")); // a 404 would be a red line in the browser's console
  return (await answer.json()).messages ?? [];
}

export function ready() {
  return ask("/readyz").then((response) => response.ok, () => false);
}

/** A random id, also where the page is not served over https and crypto.randomUUID is missing. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Names whom the token stands for: tabs of one person share their chats and their connection, others do not.
 * What a token claims is believed here only for that; the server checks it.
 */
export function identity() {
  const known = token.get();
  if (!known) return "open";
  try {
    const claims = JSON.parse(atob(known.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    if (claims.sub) return `${claims.tenant ?? ""}/${claims.sub}`;
  } catch {
    // not a JWT: it stands for itself
  }
  return hash(known);
}

function hash(text) {
  let value = 0xcbf29ce484222325n; // FNV-1a; SubtleCrypto is missing without https
  for (const byte of new TextEncoder().encode(text)) value = BigInt.asUintN(64, (value ^ BigInt(byte)) * 0x100000001b3n);
  return value.toString(16);
}

// The chat page: puts its parts together. What a model wrote is only ever text or nodes made one by one (render.js).

import * as api from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { askForToken, confirmed, say } from "./dialogs.js";
import { Hub } from "./hub.js";
import { Scroll } from "./scroll.js";
import { Sidebar } from "./sidebar.js";
import { Status } from "./status.js";
import { Store } from "./store.js";
import { TurnView } from "./view.js";

const find = (selector) => document.querySelector(selector);
const log = find("#log");
const store = new Store(api.identity());
const status = new Status();
const scroll = new Scroll(log, find("#jump"));
const views = new Map(); // turn: its view
const hub = new Hub(api.identity(), api.newId(), api.watch, heard);
const sidebar = new Sidebar({ select: (id) => (location.hash = id), remove });
const composer = new Composer({
  send: ask,
  stop: () => chat.stop(),
  last: () => chat.lastQuestion,
});
let chat = null;

// -- one chat at a time; which one stands in the address, so that a reload stays there

function show(id) {
  chat?.leave();
  views.clear();
  log.replaceChildren();
  chat = new Chat(id, store, {
    changed,
    listed,
    accepted: (turn) => hub.tell({ kind: "said", session: id, turn: turn.id, question: turn.question }),
    used: (message) => used(id, message),
    refused,
    unauthorised: () => askForToken("The server does not take this token."),
  });
  status.set({ line: "connecting" });
  listed();
  scroll.toEnd();
  listChats();
  hub.watch(id);
}

function named() {
  const id = location.hash.slice(1);
  return /^[A-Za-z0-9_-]{1,64}$/.test(id) ? id : null;
}

function newChat() {
  location.hash = api.newId();
  sidebar.giveWay();
  composer.focus();
}

async function remove({ id, title }) {
  if (!(await confirmed(title))) return;
  const current = id === chat.id;
  if (current) newChat();
  store.forget(id);
  listChats();
  hub.tell({ kind: "removed", session: id });
  try {
    await api.remove(id);
  } catch (error) {
    say(`“${title}” is gone from this list, but the server still has it: ${error.message}`);
  }
}

function used(id, message) {
  store.used(id, message);
  listChats();
}

function listChats() {
  const chats = store.chats();
  sidebar.render(chats, chat.id);
  const title = chats.find((each) => each.id === chat.id)?.title;
  find("#title").textContent = title || "New chat";
  document.title = title ? `${title} · warmwire` : "warmwire";
}

// -- the conversation on the screen

/** The turns, in their order; those that are shown already are not moved. */
function listed() {
  for (const [turn, view] of views) {
    if (chat.turns.includes(turn)) continue;
    view.node.remove();
    views.delete(turn);
  }
  chat.turns.forEach((turn, number) => {
    const { node } = viewOf(turn);
    if (log.children[number] !== node) scroll.keeping(() => log.insertBefore(node, log.children[number]));
  });
  find("#welcome").hidden = chat.turns.length > 0;
  const [first] = chat.turns;
  if (first?.question && !store.chats().some((each) => each.id === chat.id)) used(chat.id, first.question);
  answering();
}

function viewOf(turn) {
  if (!views.has(turn)) {
    const on = {
      keeping: (change) => scroll.keeping(change),
      retry: () => ask(turn.question),
      permit: (question, allow) => chat.permit(turn, question, allow),
    };
    views.set(turn, new TurnView(turn, on));
  }
  return views.get(turn);
}

function changed(turn) {
  views.get(turn)?.update();
  answering();
}

function answering() {
  const running = chat.running.length > 0;
  composer.answering = running;
  status.set({ answering: running });
  log.setAttribute("aria-busy", String(running)); // a screen reader reads the answer once it is whole
}

/** Sends a message; who does wants to see its answer. */
function ask(question) {
  chat.ask(question);
  scroll.toEnd();
  composer.focus();
}

function refused(message, error) {
  say(error.message);
  composer.offer(message);
}

// -- what the streams and the other tabs say

function heard({ kind, session, ...said }) {
  if (kind === "removed") listChats();
  if (session !== chat?.id) return;
  HEARD[kind]?.(said);
}

const HEARD = {
  live({ fresh }) {
    status.set({ line: "live" });
    if (fresh) chat.refresh();
  },
  event: ({ event }) => chat.take(event),
  broken: () => status.set({ line: "broken" }),
  paused: () => status.set({ line: "paused" }),
  said: ({ turn, question }) => chat.said(turn, question),
  removed: () => newChat(),
  refused({ status: code, message }) {
    status.set({ line: "refused" });
    if (code === 401) askForToken(message);
    else say(message);
  },
};

// -- what people do

find("#skip").addEventListener("click", () => composer.focus());
for (const each of document.querySelectorAll(".new-chat")) each.addEventListener("click", newChat);
find("#welcome").addEventListener("click", ({ target }) => {
  if (!(target instanceof HTMLButtonElement)) return;
  composer.submit(target.textContent);
  composer.focus();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
  if (!sidebar.giveWay()) chat.stop();
});
addEventListener("hashchange", () => {
  show(named() ?? api.newId());
  sidebar.giveWay();
});
addEventListener("pagehide", () => chat.save());
for (const name of ["focus", "pointerdown", "keydown"]) addEventListener(name, () => hub.touch());
document.addEventListener("visibilitychange", () => document.hidden || hub.touch());
store.onChange(listChats);
find("#forget-token").hidden = !api.token.get();
find("#forget-token").addEventListener("click", () => {
  api.token.forget();
  location.reload();
});

// -- beginning

async function untilReady() {
  while (!(await api.ready())) await new Promise((resolve) => setTimeout(resolve, 1000));
  status.set({ ready: true });
}

if (named() === null) history.replaceState(null, "", `#${store.chats()[0]?.id ?? api.newId()}`);
show(named());
hub.start();
untilReady();

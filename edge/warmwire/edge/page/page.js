// The chat page. What a model wrote is only ever text here: textContent, never HTML.

import { Answer } from "./answer.js";
import { Refused, turnEvents } from "./stream.js";

const PATH = "/v1/chat/stream";
const STORE = "warmwire.chat";
const KEPT = 200; // messages kept over a reload
const CLOSE_TO_END = 80; // px: who reads further up is not pulled down

const log = document.querySelector("#log");
const welcome = document.querySelector("#welcome");
const composer = document.querySelector("#composer");
const input = document.querySelector("#message");
const send = document.querySelector("#send");
const state = document.querySelector("#state");

let chat = restored();
let leaving = new AbortController();
let answering = false;
let ready = false;

// -- what is kept over a reload: the session, what was said, and the turn that was still being answered

function restored() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE));
    if (kept && typeof kept.session === "string" && Array.isArray(kept.messages)) return kept;
  } catch {
    // not ours, or no storage: begin anew
  }
  return { session: newId(), messages: [], open: null };
}

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify({ ...chat, messages: chat.messages.slice(-KEPT) }));
  } catch {
    // full or switched off: the chat works, it is only not kept
  }
}

/** A random id, also where the page is not served over https and crypto.randomUUID is missing. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// -- showing

const STATES = {
  connecting: "Connecting",
  ready: "Ready",
  answering: "Answering",
  reconnecting: "Reconnecting",
  offline: "Offline",
};

function show(name) {
  if (state.dataset.state === name) return;
  state.dataset.state = name;
  state.textContent = STATES[name];
}

function showRest() {
  show(navigator.onLine === false ? "offline" : ready ? "ready" : "connecting");
}

class Bubble {
  constructor(role, text = "") {
    const article = document.querySelector("#message-template").content.cloneNode(true).firstElementChild;
    article.classList.add(role);
    article.querySelector("h2").textContent = role === "user" ? "You" : "Answer";
    this.article = article;
    this.note = article.querySelector(".note");
    this.text = document.createTextNode(text);
    if (text) article.querySelector(".text").append(this.text);
    this.waiting = "";
    this.frame = 0;
    log.append(article);
    welcome.hidden = true;
    log.scrollTop = log.scrollHeight;
  }

  /** Adds text at the next frame, together with what else comes until then. */
  append(text) {
    this.waiting += text;
    if (document.hidden) this.#draw();
    else this.frame ||= requestAnimationFrame(() => this.#draw());
  }

  replace(text) {
    this.waiting = "";
    this.text.data = "";
    this.append(text);
  }

  say(text, kind = "") {
    if (text === this.note.textContent) return;
    keepingEnd(() => {
      this.note.textContent = text;
      this.note.className = `note ${kind}`;
    });
  }

  grow(on) {
    this.article.classList.toggle("growing", on);
    log.setAttribute("aria-busy", String(on)); // a screen reader reads the answer once it is whole
    if (!on) this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    keepingEnd(() => {
      if (!this.text.parentNode && this.waiting) this.article.querySelector(".text").append(this.text);
      this.text.appendData(this.waiting);
      this.waiting = "";
    });
  }
}

/** Changes the conversation; who was reading its end still sees it. */
function keepingEnd(change) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < CLOSE_TO_END;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// -- a turn

/** Sends the message, or with `turn` goes on reading the answer of one that was sent before. */
async function answer(message, turn) {
  const signal = leaving.signal;
  const bubble = new Bubble("assistant");
  const told = new Answer();
  answering = true;
  inputChanged();
  show("answering");
  bubble.say("Sending", "waiting");
  try {
    for await (const event of turnEvents(connection(message, signal), turn ? `${turn}.0.0` : "", signal)) {
      take(event, bubble, told);
    }
    finish(bubble, told);
  } catch (error) {
    if (!signal.aborted) failed(error, bubble, message);
  } finally {
    if (!signal.aborted) rest(bubble);
  }
}

function connection(message, signal) {
  const key = newId(); // a message that is sent again because the line broke is still one message
  return (lastId) => {
    const query = new URLSearchParams({ session_id: chat.session });
    if (lastId) return fetch(`${PATH}?${query}`, { headers: { "Last-Event-ID": lastId }, signal });
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    const body = JSON.stringify({ session_id: chat.session, message });
    return fetch(PATH, { method: "POST", headers, body, signal });
  };
}

function take(event, bubble, told) {
  show(event.type === "disconnected" ? "reconnecting" : "answering");
  const text = told.add(event);
  if (text === null) bubble.replace(told.text);
  else if (text) bubble.append(text);
  if (told.text) bubble.grow(true);
  const note = NOTES[event.type];
  if (note) bubble.say(...note(event, told.text !== ""));
  if (event.type === "turn_queued" || event.type === "turn_started") open(event.turn);
  bubble.ended ||= event.type.startsWith("turn_") && "duration_ms" in event;
}

const seconds = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

const NOTES = {
  disconnected: () => ["The connection broke; trying again", "waiting"],
  turn_queued: () => ["Waiting", "waiting"],
  turn_started: () => ["Thinking", "waiting"],
  message_start: (_, some) => [some ? "" : "Thinking", "waiting"],
  content_block_delta: () => ["", ""],
  tool_started: (event) => [`Using ${event.name}`, "waiting"],
  tool_finished: () => ["Thinking", "waiting"],
  turn_progress: (event) => [`Still working, ${seconds(event.elapsed_ms)}`, "waiting"],
  turn_reset: () => ["Starting the answer again", "waiting"],
  gap: () => ["Part of the answer was missed", "waiting"],
  snapshot: (_, some) => [some ? "" : "Thinking", "waiting"],
  turn_completed: (event) => [event.ttft_ms ? `First words after ${seconds(event.ttft_ms)}` : "", ""],
  turn_interrupted: () => ["Stopped", ""],
  turn_failed: (event) => [event.message, "bad"],
};

function open(turn) {
  if (chat.open === turn) return;
  chat.open = turn;
  keep();
}

function finish(bubble, told) {
  if (!bubble.ended) bubble.say("The end of this answer is no longer known.", "bad");
  chat.messages.push({ role: "assistant", text: told.text, note: bubble.note.textContent });
}

function failed(error, bubble, message) {
  bubble.say(error instanceof Refused ? error.message : `Something went wrong: ${error.message}`, "bad");
  if (error instanceof Refused && message !== null) {
    chat.messages.pop(); // it was not accepted: back to where it can be changed
    bubble.article.previousElementSibling.remove();
    input.value ||= message;
  }
}

function rest(bubble) {
  bubble.grow(false);
  answering = false;
  chat.open = null;
  keep();
  showRest();
  inputChanged();
}

// -- what people do

function inputChanged() {
  send.disabled = answering || input.value.trim() === "";
}

function submit() {
  const message = input.value.trim();
  if (answering || message === "") return;
  input.value = "";
  new Bubble("user", message);
  chat.messages.push({ role: "user", text: message });
  keep();
  answer(message, null);
}

function newChat() {
  leaving.abort();
  leaving = new AbortController();
  answering = false;
  chat = { session: newId(), messages: [], open: null };
  keep();
  log.replaceChildren();
  log.removeAttribute("aria-busy");
  welcome.hidden = false;
  showRest();
  inputChanged();
  input.focus();
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
input.addEventListener("input", inputChanged);
input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
welcome.addEventListener("click", (event) => {
  if (!(event.target instanceof HTMLButtonElement)) return;
  input.value = event.target.textContent;
  submit();
  input.focus();
});
document.querySelector("#new-chat").addEventListener("click", newChat);

// -- beginning

async function untilReady() {
  while (!ready) {
    ready = await fetch("/readyz").then((response) => response.ok, () => false);
    if (!answering) showRest();
    if (!ready) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

addEventListener("offline", () => show("offline"));
addEventListener("online", () => (answering ? show("reconnecting") : showRest()));

for (const { role, text, note } of chat.messages) new Bubble(role, text).say(note ?? "");
if (chat.open) answer(null, chat.open);
inputChanged();
untilReady();

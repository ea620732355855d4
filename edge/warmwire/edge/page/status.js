// What the page knows of its connection, in a word above and, if it lasts, in a sentence.

const STATES = {
  connecting: "Connecting",
  ready: "Ready",
  answering: "Answering",
  reconnecting: "Reconnecting",
  offline: "Offline",
  paused: "Paused",
  refused: "No access",
};
const SENTENCES = {
  connecting: "The service is not ready yet. What you send is kept until it is.",
  reconnecting: "The connection broke. It is being made again; nothing is lost.",
  offline: "You are offline. The answer goes on when you are back.",
  paused: "Too many chats are open in other tabs. This one goes on when you use it.",
  refused: "This chat belongs to somebody else, or this server does not let you in.",
};
const PATIENCE = 1500; // ms before it is worth a sentence

export class Status {
  #word = document.querySelector("#state");
  #banner = document.querySelector("#banner");
  #timer = 0;
  #known = { ready: false, line: "connecting", answering: false };

  constructor() {
    addEventListener("offline", () => this.#show());
    addEventListener("online", () => this.#show());
    this.#show();
  }

  /** Takes what is new of {ready, line: "connecting" | "live" | "broken" | "paused" | "refused", answering}. */
  set(news) {
    Object.assign(this.#known, news);
    this.#show();
  }

  get #name() {
    const { ready, line, answering } = this.#known;
    if (navigator.onLine === false) return "offline";
    if (line === "broken") return "reconnecting";
    if (line === "paused" || line === "refused") return line;
    if (answering) return "answering";
    return ready && line === "live" ? "ready" : "connecting";
  }

  #show() {
    const name = this.#name;
    if (this.#word.dataset.state === name && this.#word.textContent) return;
    this.#word.dataset.state = name;
    this.#word.textContent = STATES[name];
    clearTimeout(this.#timer);
    this.#banner.hidden = true;
    if (SENTENCES[name] === undefined) return;
    this.#timer = setTimeout(() => {
      this.#banner.textContent = SENTENCES[name];
      this.#banner.hidden = false;
    }, PATIENCE);
  }
}

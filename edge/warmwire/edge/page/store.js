// What this browser keeps: the list of chats and, of each, what was last seen of it. The server's word counts more.

const CHATS = 100; // in the list; the oldest is forgotten, here and not on the server
const TURNS = 100; // of a chat
const TITLE = 60; // characters

export class Store {
  #name;

  constructor(identity) {
    this.#name = `warmwire.${identity}`;
  }

  /** [{id, title, at}], the one used last first. */
  chats() {
    const kept = this.#read(this.#name);
    return Array.isArray(kept) ? kept.filter((chat) => typeof chat?.id === "string") : [];
  }

  /** A chat was used. Its title is its first message. */
  used(id, message) {
    const chats = this.chats();
    const known = chats.find((chat) => chat.id === id);
    const chat = { id, title: known?.title || titleOf(message), at: Date.now() };
    const kept = [chat, ...chats.filter((each) => each.id !== id)];
    for (const { id: old } of kept.slice(CHATS)) this.#drop(this.#of(old));
    this.#write(this.#name, kept.slice(0, CHATS));
  }

  forget(id) {
    this.#drop(this.#of(id));
    this.#write(this.#name, this.chats().filter((chat) => chat.id !== id));
  }

  /** What `keep` was given, or nothing. */
  turns(id) {
    const kept = this.#read(this.#of(id));
    return Array.isArray(kept) ? kept : [];
  }

  keep(id, turns) {
    if (turns.length > 0) this.#write(this.#of(id), turns.slice(-TURNS));
  }

  /** Calls back when another tab has changed the list. */
  onChange(changed) {
    addEventListener("storage", (event) => event.key === this.#name && changed());
  }

  #of(id) {
    return `${this.#name}.${id}`;
  }

  #read(name) {
    try {
      return JSON.parse(localStorage.getItem(name));
    } catch {
      return null; // not ours, or storage is switched off: as if nothing were kept
    }
  }

  /** What does not fit makes room: the oldest chats' turns go first. Without storage nothing is kept, and all works. */
  #write(name, value) {
    const text = JSON.stringify(value);
    for (const chat of [...this.chats().reverse(), null]) {
      try {
        localStorage.setItem(name, text);
        return;
      } catch {
        if (chat !== null) this.#drop(this.#of(chat.id));
      }
    }
  }

  #drop(name) {
    try {
      localStorage.removeItem(name);
    } catch {
      // storage is switched off: nothing is there
    }
  }
}

function titleOf(message) {
  const line = message.trim().split("\n", 1)[0];
  return line.length > TITLE ? `${line.slice(0, TITLE - 1).trimEnd()}…` : line;
}

// The list of chats. Beside the conversation where there is room, over it where there is none.

import { button, element } from "./elements.js";

const CLOSED = "warmwire.sidebar";
const narrow = matchMedia("(max-width: 50rem)");

export class Sidebar {
  #panel = document.querySelector("#sidebar");
  #list = document.querySelector("#chats");
  #toggle = document.querySelector("#menu");
  #veil = document.querySelector("#veil");
  #rest = document.querySelector("#chat");
  #on;
  #open;

  /** `on`: {select(id), remove(chat)} */
  constructor(on) {
    this.#on = on;
    this.#show(!narrow.matches && sessionStorage.getItem(CLOSED) === null);
    this.#toggle.addEventListener("click", () => this.#turn(!this.#open));
    this.#veil.addEventListener("click", () => this.#turn(false));
    document.querySelector("#menu-close").addEventListener("click", () => this.#turn(false));
    narrow.addEventListener("change", () => this.#show(!narrow.matches));
  }

  /** Closes it where it covers the conversation; whether it did. */
  giveWay() {
    const covers = narrow.matches && this.#open;
    if (covers) this.#show(false);
    return covers;
  }

  render(chats, current) {
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    this.#list.replaceChildren(...chats.map((chat) => this.#item(chat, chat.id === current)));
    if (focused) [...this.#list.querySelectorAll("[data-id]")].find((each) => each.dataset.id === focused)?.focus();
    document.querySelector("#no-chats").hidden = chats.length > 0;
  }

  #item(chat, current) {
    const title = chat.title || "Untitled";
    const open = element("button", { type: "button", className: "select", title }, title);
    open.dataset.id = chat.id;
    if (current) open.setAttribute("aria-current", "page");
    open.addEventListener("click", () => this.#on.select(chat.id));
    const remove = button("trash", `Delete “${title}”`, () => this.#on.remove({ ...chat, title }));
    remove.className = "remove";
    return element("li", {}, open, remove);
  }

  #turn(open) {
    this.#show(open);
    if (open) sessionStorage.removeItem(CLOSED);
    else sessionStorage.setItem(CLOSED, "1");
    (open ? document.querySelector("#menu-close") : this.#toggle).focus();
  }

  /** What is covered or closed cannot be reached by the keyboard either. */
  #show(open) {
    this.#open = open;
    document.body.classList.toggle("with-sidebar", open);
    this.#toggle.setAttribute("aria-expanded", String(open));
    this.#panel.inert = !open;
    this.#rest.inert = open && narrow.matches;
    this.#veil.hidden = !(open && narrow.matches);
  }
}

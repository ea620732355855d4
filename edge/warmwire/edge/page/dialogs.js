// What is asked in between: a token, whether a chat is really to be deleted; and what is said for a moment.

import { token } from "./api.js";

const SAID = 8000; // ms that a message stays

/** Asks for a token, keeps it, and begins anew with it. */
export function askForToken(refused) {
  const dialog = document.querySelector("#token");
  if (dialog.open) return;
  dialog.querySelector(".problem").textContent = refused && token.get() ? refused : "";
  dialog.querySelector("form").onsubmit = () => {
    token.set(dialog.querySelector("input").value.trim());
    location.reload();
  };
  dialog.showModal();
}

/** Whether a chat is to be deleted. */
export function confirmed(title) {
  const dialog = document.querySelector("#confirm");
  dialog.querySelector("b").textContent = title;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "delete"), { once: true });
  });
}

let timer = 0;

/** Says something for a moment; screen readers read it out. */
export function say(text) {
  const said = document.querySelector("#said");
  said.textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => (said.textContent = ""), SAID);
}

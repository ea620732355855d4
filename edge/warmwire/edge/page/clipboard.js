// Copying, also where the page is not served over https and the browser has no clipboard for it.

import { icon } from "./elements.js";

const SHOWN = 1600; // ms that a button says that it has copied

/** Copies, and lets the button say so. */
export async function copyText(text, button) {
  const copied = await written(text);
  const name = button.getAttribute("aria-label");
  if (button.dataset.said) return;
  button.dataset.said = copied ? "copied" : "failed";
  button.setAttribute("aria-label", copied ? "Copied" : "Could not copy");
  button.firstElementChild.replaceWith(icon(copied ? "check" : "alert"));
  setTimeout(() => {
    delete button.dataset.said;
    button.setAttribute("aria-label", name);
    button.firstElementChild.replaceWith(icon("copy"));
  }, SHOWN);
}

async function written(text) {
  if (!navigator.clipboard) return byHand(text);
  return navigator.clipboard.writeText(text).then(
    () => true,
    () => byHand(text), // not allowed: the old way may be
  );
}

function byHand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  const focused = document.activeElement;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

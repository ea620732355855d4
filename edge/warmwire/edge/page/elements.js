// Making nodes.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties and children; strings become text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** One of the drawings in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  svg.append(use);
  return svg;
}

/** A button with a drawing; with `text` that stands beside it, else the name is only told. */
export function button(drawing, name, onClick, text = "") {
  const made = element("button", { type: "button", title: name, ariaLabel: name }, icon(drawing), text);
  made.addEventListener("click", onClick);
  return made;
}

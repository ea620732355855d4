// A turn on the screen: the question, the answer as it grows, and what one can do about it.

import { PHASES } from "./turn.js";
import { Markdown } from "./render.js";
import { button, element, icon } from "./elements.js";
import { copyText } from "./clipboard.js";

const HIDDEN_EVERY = 250; // ms between two updates of a page that nobody sees
const seconds = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

export class TurnView {
  #turn;
  #on;
  #parts = new Map(); // of the turn: its view
  #due = false;
  #question = element("div", { className: "text" });
  #user = element("article", { className: "user" }, element("h2", {}, "You"), this.#question);
  #body = element("div", { className: "parts" });
  #note = element("p", { className: "note" });
  #meta = element("span", { className: "meta" });
  #copy = button("copy", "Copy answer", () => copyText(this.#turn.text, this.#copy));
  #retry;
  #actions;
  #assistant;

  /** `on`: {keeping(change) with each change of the screen, retry(), permit(question, allow)} */
  constructor(turn, on) {
    this.#turn = turn;
    this.#on = on;
    this.#retry = button("retry", "Try again", on.retry, "Try again");
    this.#actions = element("div", { className: "actions" }, this.#copy, this.#retry, this.#meta);
    const parts = [element("h2", {}, "Answer"), this.#body, this.#note, this.#actions];
    this.#assistant = element("article", { className: "assistant" }, ...parts);
    this.node = element("div", { className: "turn" }, this.#user, this.#assistant);
    this.#draw();
  }

  /** Shows what has changed, at the next frame, together with what else changes until then. */
  update() {
    if (this.#due) return;
    this.#due = true;
    if (document.hidden) setTimeout(() => this.#draw(), HIDDEN_EVERY);
    else requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#due = false;
    this.#on.keeping(() => {
      this.#drawQuestion();
      this.#drawParts();
      this.#drawNote();
      this.#drawActions();
    });
  }

  #drawQuestion() {
    const { question } = this.#turn;
    this.#user.hidden = question === null;
    if (question !== null && this.#question.textContent !== question) this.#question.textContent = question;
  }

  #drawParts() {
    const { parts, ended } = this.#turn;
    for (const [part, view] of this.#parts) {
      if (parts.includes(part)) continue;
      view.node.remove();
      this.#parts.delete(part);
    }
    parts.forEach((part, number) => {
      const view = this.#parts.get(part) ?? this.#newPart(part);
      view.draw(ended || number < parts.length - 1);
      if (this.#body.children[number] !== view.node) this.#body.insertBefore(view.node, this.#body.children[number]);
    });
  }

  #newPart(part) {
    const view = new VIEWS[part.kind](part, this.#on);
    this.#parts.set(part, view);
    return view;
  }

  #drawNote() {
    const { phase, elapsed, gap, detail, cut } = this.#turn;
    let text = gap ? "Part of the answer was missed" : phase === "failed" ? detail : PHASES[phase];
    if (elapsed !== null && !this.#turn.ended) text = `Still working, ${seconds(elapsed)}`;
    if (cut && this.#turn.ended && !text) text = "The beginning of it is kept; it was longer.";
    if (this.#note.textContent !== text) this.#note.textContent = text;
    const kind = phase === "failed" ? "bad" : this.#turn.ended ? "" : "waiting";
    this.#note.className = `note ${kind}`;
    this.#assistant.classList.toggle("growing", phase === "writing" && this.#turn.parts.at(-1)?.kind === "text");
    this.#assistant.dataset.phase = phase;
  }

  #drawActions() {
    const { ended, phase, text, ttft, question, retryable } = this.#turn;
    this.#actions.hidden = !ended;
    this.#copy.hidden = text === "";
    this.#retry.hidden = phase === "done" || question === null || !(retryable || phase === "stopped");
    this.#meta.textContent = phase === "done" && ttft !== null ? `First words after ${seconds(ttft)}` : "";
  }
}

class TextPart {
  node = element("div", { className: "text markdown" });
  #part;
  #shown = 0;
  #ended = false;
  #markdown = new Markdown(this.node);

  constructor(part) {
    this.#part = part;
  }

  draw(ended) {
    const { text } = this.#part;
    if (text.length > this.#shown) this.#grow(text);
    if (ended && !this.#ended) this.#markdown.end();
    this.#ended = ended;
  }

  #grow(text) {
    if (this.#ended) this.#again(); // it was taken for whole, and was not
    this.#markdown.add(text.slice(this.#shown));
    this.#shown = text.length;
  }

  #again() {
    this.node.replaceChildren();
    this.#markdown = new Markdown(this.node);
    this.#shown = 0;
    this.#ended = false;
  }
}

class ThinkingPart {
  #part;
  #text = element("p", {}, document.createTextNode(""));
  node = element("details", { className: "aside thinking" }, element("summary", {}, icon("spark"), "Thoughts"), this.#text);

  constructor(part) {
    this.#part = part;
  }

  draw() {
    this.node.hidden = this.#part.text.trim() === "";
    const shown = this.#text.firstChild;
    if (this.#part.text.length > shown.length) shown.appendData(this.#part.text.slice(shown.length));
  }
}

class ToolPart {
  #part;
  #state = element("span", { className: "state" });
  node;

  constructor(part) {
    this.#part = part;
    const summary = element("summary", {}, icon("tool"), element("span", {}, part.name), this.#state);
    this.node = element("details", { className: "aside tool" }, summary, element("pre", {}, part.summary));
  }

  draw() {
    this.node.dataset.state = this.#part.state;
    this.#state.textContent = this.#part.state;
  }
}

const OUTCOMES = { allowed: "allowed", denied: "denied", overdue: "not answered in time", withdrawn: "no longer asked" };

/** The CLI asks whether it may use a tool. */
class QuestionPart {
  #part;
  #choices;
  #outcome = element("span", { className: "state" });
  node;

  constructor(part, { permit }) {
    this.#part = part;
    const allow = button("check", "Allow", () => permit(part, true), "Allow");
    const deny = button("close", "Deny", () => permit(part, false), "Deny");
    this.#choices = element("div", { className: "choices" }, deny, allow);
    const asked = element("p", {}, "May it use ", element("b", {}, part.name), "? ", this.#outcome);
    this.node = element("div", { className: "question" }, asked, element("pre", {}, part.summary), this.#choices);
    this.node.setAttribute("role", "group");
    this.node.setAttribute("aria-label", "Permission");
  }

  draw() {
    this.#choices.hidden = this.#part.state !== "open";
    this.#outcome.textContent = OUTCOMES[this.#part.state] ?? "";
  }
}

const VIEWS = { text: TextPart, thinking: ThinkingPart, tool: ToolPart, question: QuestionPart };

// Where one writes: Enter sends, Shift+Enter begins a line, Up brings back what was sent last, Esc stops.

const DRAFT = "warmwire.draft";

export class Composer {
  #form = document.querySelector("#composer");
  #input = document.querySelector("#message");
  #send = document.querySelector("#send");
  #stop = document.querySelector("#stop");
  #on;

  /** `on`: {send(text), stop(), last()} */
  constructor(on) {
    this.#on = on;
    this.#input.value = sessionStorage.getItem(DRAFT) ?? "";
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.#input.addEventListener("input", () => this.#changed());
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    this.#stop.addEventListener("click", () => {
      this.focus();
      on.stop();
    });
    this.#changed();
  }

  /** Puts a text where it can be changed; what somebody is writing stays. */
  offer(text) {
    if (!this.#input.value) this.#set(text);
  }

  submit(text = this.#input.value) {
    const message = text.trim();
    if (message === "") return;
    this.#set("");
    this.#on.send(message);
  }

  /** Whether there is something to stop. */
  set answering(answering) {
    this.#stop.hidden = !answering;
  }

  focus() {
    this.#input.focus();
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && this.#input.value === "") {
      event.preventDefault();
      this.#set(this.#on.last());
    }
  }

  #set(text) {
    this.#input.value = text;
    this.#changed();
  }

  #changed() {
    const { value } = this.#input;
    this.#send.disabled = value.trim() === "";
    try {
      sessionStorage.setItem(DRAFT, value);
    } catch {
      sessionStorage.removeItem(DRAFT); // too long to be kept
    }
    if (CSS.supports("field-sizing", "content")) return;
    this.#input.style.height = "auto";
    this.#input.style.height = `${this.#input.scrollHeight}px`;
  }
}

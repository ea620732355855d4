// The conversation stays at its end while it grows, unless somebody reads further up.

const CLOSE = 80; // px from the end that count as the end

export class Scroll {
  #log;
  #jump;
  #atEnd = true;

  constructor(log, jump) {
    this.#log = log;
    this.#jump = jump;
    log.addEventListener("scroll", () => this.#look(), { passive: true });
    new ResizeObserver(() => this.#atEnd && this.toEnd()).observe(log);
    jump.addEventListener("click", () => this.toEnd());
  }

  /** Changes the conversation; who was at its end still is. */
  keeping(change) {
    change();
    if (this.#atEnd) this.toEnd();
    else this.#look();
  }

  toEnd() {
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#atEnd = true;
    this.#jump.hidden = true;
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < CLOSE;
    this.#jump.hidden = this.#atEnd;
  }
}

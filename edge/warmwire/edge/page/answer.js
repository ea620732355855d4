// The text that a turn's events add up to. No DOM in here.

/** One block per (message, index); a turn that uses tools has several messages. */
export class Answer {
  #message = -1;
  #blocks = new Map();

  /** Takes one event; returns the text that it appends, or null when the whole has to be shown anew. */
  add(event) {
    switch (event.type) {
      case "message_start":
        this.#message += 1;
        return "";
      case "content_block_delta":
        return event.delta.type === "text_delta" ? this.#append(event.index, event.delta.text) : "";
      case "turn_reset":
        this.#forgetFrom(event.message ?? 0);
        return null;
      case "snapshot":
        this.#replace(event.blocks);
        return null;
    }
    return "";
  }

  get text() {
    return [...this.#blocks.values()].join("\n\n");
  }

  #append(index, text) {
    const name = `${this.#message}.${index}`;
    const known = this.#blocks.get(name);
    this.#blocks.set(name, (known ?? "") + text);
    return (known === undefined && this.#blocks.size > 1 ? "\n\n" : "") + text;
  }

  #forgetFrom(message) {
    for (const name of [...this.#blocks.keys()]) if (parseInt(name, 10) >= message) this.#blocks.delete(name);
    this.#message = message - 1;
  }

  #replace(blocks) {
    const texts = blocks.filter((block) => block.kind === "text");
    this.#blocks = new Map(texts.map((block) => [`${block.message}.${block.index}`, block.text]));
    this.#message = Math.max(this.#message, ...blocks.map((block) => block.message));
  }
}

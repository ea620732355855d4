// One conversation: its turns in their order, what is sent, and what comes in.

import * as api from "./api.js";
import { Turn } from "./turn.js";
import { isBreak, waiting } from "./sse.js";

const PAUSE = 1000; // ms before a message is sent again that did not reach the server
const HELD = 1000; // events; past that they are shown as somebody else's until more is known
const SAVE_EVERY = 2000; // ms, while an answer grows

export class Chat {
  id;
  turns = [];
  #store;
  #on;
  #leaving = new AbortController();
  #sending = new Map(); // turn: its AbortController, until the server has accepted it
  #held = []; // events, of which it is not yet known whether they answer what is being sent
  #saving = 0;
  #asking = null; // the request for what the server knows
  #askAgain = false;

  /** `on`: {changed(turn), listed(), accepted(turn), used(message), refused(message, error), unauthorised()} */
  constructor(id, store, on) {
    this.id = id;
    this.#store = store;
    this.#on = on;
    this.turns = store.turns(id).map(Turn.restored);
    for (const turn of this.turns) if (turn.phase === "sending") this.#send(turn);
  }

  get running() {
    return this.turns.filter((turn) => !turn.ended);
  }

  get lastQuestion() {
    return this.turns.findLast((turn) => turn.question !== null)?.question ?? "";
  }

  leave() {
    this.save();
    this.#leaving.abort();
  }

  // -- what people do

  /** Sends a message; its turn is there at once. */
  ask(question) {
    const turn = new Turn(null, question, "sending");
    turn.key = api.newId();
    this.turns.push(turn);
    this.#on.used(question);
    this.#on.listed();
    this.save();
    this.#send(turn);
  }

  /** Stops what runs and waits, the last first, so that none begins meanwhile. */
  stop() {
    for (const turn of this.running.reverse()) {
      if (turn.id !== null) this.#interrupt(turn);
      else this.#stopSending(turn);
    }
  }

  /** What is on its way may have been accepted: it is stopped once that is known. Nothing is sent again. */
  #stopSending(turn) {
    turn.phase = "stopping";
    this.#sending.get(turn)?.abort();
    this.#on.changed(turn);
  }

  async #interrupt(turn) {
    const before = turn.phase;
    turn.phase = "stopping";
    this.#on.changed(turn);
    try {
      const answer = await api.interrupt(this.id, turn.id);
      if ((await answer.json()).turn === null) this.refresh(); // it has ended, and we have not heard of it
    } catch (error) {
      if (turn.phase === "stopping") turn.phase = before;
      this.#on.changed(turn);
      this.#failed(error);
    }
  }

  /** Answers a question of the CLI's; that it has the answer is told by an event, to all tabs. */
  async permit(turn, question, allow) {
    try {
      await api.permit(this.id, turn.id, question.id, allow);
    } catch (error) {
      this.#failed(error);
    }
  }

  async #send(turn) {
    const sending = new AbortController();
    this.#sending.set(turn, sending);
    try {
      const accepted = this.#accepted(turn, await this.#untilAccepted(turn, sending.signal));
      if (sending.signal.aborted) this.#interrupt(accepted);
    } catch (error) {
      if (!this.#leaving.signal.aborted) this.#notSent(turn, error, sending.signal.aborted);
    } finally {
      this.#sending.delete(turn);
      if (this.#sending.size === 0) this.#release();
    }
  }

  async #untilAccepted(turn, stopped) {
    const leaving = this.#leaving.signal;
    for (;;) {
      try {
        return await api.send(this.id, turn.question, turn.key, leaving);
      } catch (error) {
        const passing = error instanceof api.Refused ? error.passing : isBreak(error);
        if (leaving.aborted || stopped.aborted || !passing) throw error;
      }
      await waiting(PAUSE, AbortSignal.any([leaving, stopped]));
      leaving.throwIfAborted();
      stopped.throwIfAborted();
    }
  }

  /** Its first events may have been faster than the answer: then there is a turn of that id already. */
  #accepted(turn, id) {
    const known = this.turns.find((each) => each.id === id);
    if (known) {
      known.question = turn.question;
      this.#drop(turn);
    } else {
      turn.id = id;
      turn.begin("waiting");
    }
    const accepted = known ?? turn;
    this.#on.listed();
    this.#on.changed(accepted);
    this.#on.accepted(accepted);
    this.save();
    return accepted;
  }

  #notSent(turn, error, stopped) {
    if (stopped) {
      turn.fail("It was not sent.");
      this.#on.changed(turn);
    } else if (error instanceof api.Refused && error.status === 401) {
      this.#on.unauthorised();
    } else {
      this.#drop(turn); // it was not accepted: back to where it can be changed
      this.#on.listed();
      this.#on.refused(turn.question, error);
    }
    this.save();
  }

  #failed(error) {
    if (error instanceof api.Refused && error.status === 401) this.#on.unauthorised();
    else if (!isBreak(error)) this.#on.refused("", error);
  }

  #drop(turn) {
    this.turns = this.turns.filter((each) => each !== turn);
  }

  // -- what comes in

  /** An event of the session. Those of a turn that nobody knows wait for what is being sent: it may be that. */
  take(event) {
    const strange = event.turn !== undefined && !this.turns.some((turn) => turn.id === event.turn);
    const waits = this.#sending.size > 0 && (strange || this.#held.length > 0) && this.#held.length < HELD;
    this.#held.push(event);
    if (!waits) this.#release();
  }

  #release() {
    for (const event of this.#held.splice(0)) this.#apply(event);
  }

  /** Events of the CLI belong to the turn that spoke last. */
  #apply(event) {
    const turn = this.#turnOf(event);
    if (turn === undefined) return;
    const before = turn.phase;
    turn.take(event);
    if (turn.ended) this.save();
    else if (turn.phase !== before) this.#saveSoon();
    this.#on.changed(turn);
  }

  #current = null;

  #turnOf(event) {
    if (event.type === "gap") return this.turns.find((turn) => !turn.ended && turn.id === this.#current);
    if (event.turn !== undefined) {
      this.#current = event.turn;
      const known = this.turns.find((turn) => turn.id === event.turn);
      return known ?? this.#stranger(event.turn);
    }
    return this.turns.find((turn) => turn.id === this.#current);
  }

  /** A turn that somebody else has asked for: the server knows what was asked. */
  #stranger(id) {
    const turn = this.#add(new Turn(id, null));
    this.refresh();
    return turn;
  }

  /** Another tab has sent a message. */
  said(id, question) {
    const known = this.turns.find((turn) => turn.id === id);
    if (known === undefined) this.#add(new Turn(id, question));
    else if (known.question === null) {
      known.question = question;
      this.#on.changed(known);
    }
  }

  #add(turn) {
    this.turns.push(turn);
    this.#on.listed();
    return turn;
  }

  // -- what the server knows

  /** Asks for it, once at a time. */
  async refresh() {
    this.#askAgain = true;
    if (this.#asking) return;
    while (this.#askAgain && !this.#leaving.signal.aborted) {
      this.#askAgain = false;
      const before = new Set(this.turns.filter((turn) => turn.id !== null));
      this.#asking = api.known(this.id);
      try {
        const found = await this.#asking;
        if (!this.#leaving.signal.aborted) this.#merge(found, before);
      } catch (error) {
        this.#failed(error); // when the connection is back, it is asked again
      } finally {
        this.#asking = null;
      }
    }
  }

  /** In the order of the server; before them what only we still know, after them what came since we asked. */
  #merge({ waiting: queued, ended }, before) {
    const mine = new Map(this.turns.filter((turn) => turn.id !== null).map((turn) => [turn.id, turn]));
    const running = queued.filter(({ turn }) => !ended.some((record) => record.turn === turn));
    const theirs = [...ended.map((record) => this.#ended(mine, record)), ...running.map((each) => this.#queued(mine, each))];
    const others = this.turns.filter((turn) => !theirs.includes(turn));
    const older = others.filter((turn) => before.has(turn));
    for (const turn of older) turn.lost();
    this.turns = [...older, ...theirs, ...others.filter((turn) => !before.has(turn))];
    for (const turn of this.turns) this.#on.changed(turn);
    this.#on.listed();
    this.save();
  }

  #ended(mine, record) {
    const turn = mine.get(record.turn) ?? new Turn(record.turn, record.message);
    turn.finish(record);
    return turn;
  }

  #queued(mine, { turn: id, message }) {
    const turn = mine.get(id);
    if (turn === undefined) return new Turn(id, message);
    turn.question ??= message;
    return turn;
  }

  // -- keeping

  save() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    this.#store.keep(this.id, this.turns);
  }

  #saveSoon() {
    this.#saving ||= setTimeout(() => this.save(), SAVE_EVERY);
  }
}

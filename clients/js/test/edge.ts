// The real thing for the tests: `warmwire up` of this repository, with emulators, or what WARMWIRE_URL names; and an edge
// behind which each message says how it is answered.

import { spawn } from "node:child_process";
import type { ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  export interface ProvidedContext {
    url: string;
    /** Where a message is a script: tests/edge/scripted.py. */
    scripted: string;
  }
}

const ROOT = new URL("../../../", import.meta.url).pathname;
const PYTHON = process.env.WARMWIRE_PYTHON ?? join(ROOT, ".venv/bin/python");
/** Answers long enough to be cut fifty times, and to be stopped. */
const ANSWERS = { WARMWIRE_EMULATOR_DELTAS: "400", WARMWIRE_EMULATOR_RATE: "160", WARMWIRE_EMULATOR_TTFT_MS: "1" };
const FAULTS = { WARMWIRE_EMULATOR_FAULT: "error:400", WARMWIRE_EMULATOR_FAULT_ON: "refuse" };

type End = () => Promise<void>;

export default async function setup({ provide }: TestProject): Promise<End> {
  const [scripted, endScripted] = await started(["-m", "tests.edge.scripted"], {}, ({ stdin }) => !!stdin.end());
  provide("scripted", scripted);
  if (process.env.WARMWIRE_URL) {
    provide("url", process.env.WARMWIRE_URL);
    return endScripted;
  }
  const data = await mkdtemp(join(tmpdir(), "warmwire-js-"));
  try {
    const env = { ...ANSWERS, ...FAULTS, WARMWIRE_PORT: "0", WARMWIRE_DATA: data };
    const [url, endUp] = await started(["-m", "warmwire.compose", "up"], env, (up) => up.kill("SIGTERM"));
    provide("url", url);
    return async () => {
      await Promise.all([endScripted(), endUp()]);
      await rm(data, { recursive: true, force: true });
    };
  } catch (error) {
    await endScripted();
    throw error;
  }
}

type Process = ChildProcessByStdio<Writable, Readable, Readable>;

/** A process of this repository's that serves: where, and how to end it. */
async function started(argv: string[], env: Record<string, string>, stop: (serves: Process) => boolean): Promise<[string, End]> {
  const serves = spawn(PYTHON, argv, { cwd: ROOT, env: { ...process.env, ...env }, stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  serves.stderr.on("data", (text) => (said += text));
  const end = async () => {
    if (serves.exitCode === null && stop(serves)) await once(serves, "exit");
  };
  for await (const line of createInterface(serves.stdout)) {
    if (line.startsWith("ready ")) return [line.slice("ready ".length), end];
  }
  await end();
  throw new Error(`${argv.join(" ")} did not start:\n${said}`);
}

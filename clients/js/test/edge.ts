// The real thing for the tests: `warmwire up` of this repository, with emulators, or what WARMWIRE_URL names.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  export interface ProvidedContext {
    url: string;
  }
}

const PYTHON = process.env.WARMWIRE_PYTHON ?? new URL("../../../.venv/bin/python", import.meta.url).pathname;
/** Answers long enough to be cut fifty times, and to be stopped. */
const ANSWERS = { WARMWIRE_EMULATOR_DELTAS: "400", WARMWIRE_EMULATOR_RATE: "160", WARMWIRE_EMULATOR_TTFT_MS: "1" };
const FAULTS = { WARMWIRE_EMULATOR_FAULT: "error:400", WARMWIRE_EMULATOR_FAULT_ON: "refuse" };

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  if (process.env.WARMWIRE_URL) {
    provide("url", process.env.WARMWIRE_URL);
    return async () => {};
  }
  const data = await mkdtemp(join(tmpdir(), "warmwire-js-"));
  const env = { ...process.env, ...ANSWERS, ...FAULTS, WARMWIRE_PORT: "0", WARMWIRE_DATA: data };
  const up = spawn(PYTHON, ["-m", "warmwire.compose", "up"], { env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  up.stderr.on("data", (text) => (said += text));
  const end = async () => {
    if (up.exitCode === null && up.kill("SIGTERM")) await once(up, "exit");
    await rm(data, { recursive: true, force: true });
  };
  for await (const line of createInterface(up.stdout)) {
    if (!line.startsWith("ready ")) continue;
    provide("url", line.slice("ready ".length));
    return end;
  }
  await end();
  throw new Error(`warmwire up did not start:\n${said}`);
}

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    globalSetup: "test/edge.ts",
    reporters: ["verbose"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    sequence: { concurrent: true }, // most of the time an answer is waited for
    fileParallelism: false,
  },
});

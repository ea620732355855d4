// What a page pays: client, conversation and hook, without React, bundled, minified, compressed. Fails past the budget.

import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const BUDGET = 6.25 * 1024; // bytes
const WHOLE = 7.5 * 1024; // with the WebSocket transport, which is an entry of its own

async function size(...entries) {
  const contents = entries.map((entry) => `export * from "./dist/${entry}.js";`).join("\n");
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: import.meta.dirname },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external: ["react"],
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const [page, whole] = [await size("index", "react"), await size("index", "react", "websocket")];
console.log(`${page} of ${BUDGET} bytes, compressed, without React; with WebSockets ${whole} of ${WHOLE}`);
if (page > BUDGET || whole > WHOLE) process.exitCode = 1;

// resumable-stream's producing side: a source's lines become a stream that others can follow through Redis. Prints its port.
//
//     node worker.mjs SOURCE REDIS
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream";

const [, , command, url] = process.argv;
const publisher = createClient({ url });
const subscriber = createClient({ url });
await Promise.all([publisher.connect(), subscriber.connect()]);
const streams = createResumableStreamContext({ waitUntil: null, publisher, subscriber });
const sources = new Map();

/** A source process; what it says goes to whoever `heard` is at the time. */
function start() {
  const source = { child: spawn(command, { stdio: ["pipe", "pipe", "inherit"] }), heard: () => {} };
  let rest = "";
  source.child.stdout.setEncoding("utf8").on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    source.heard(lines);
  });
  return source;
}

/** One turn as a stream of strings; what one read brings is one string. */
function turn(source, message) {
  return new ReadableStream({
    start(controller) {
      source.heard = (lines) => {
        const said = lines.filter(Boolean).map((line) => JSON.parse(line));
        const events = said.filter((line) => line.type === "stream_event");
        if (events.length) controller.enqueue(events.map((line) => `data: ${JSON.stringify(line.event)}\n\n`).join(""));
        if (said.some((line) => line.type === "result")) controller.close();
      };
      const line = { type: "user", message: { role: "user", content: message }, uuid: "u" };
      source.child.stdin.write(JSON.stringify(line) + "\n");
    },
  });
}

async function begin({ id, session_id: session, message }) {
  if (!sources.has(session)) sources.set(session, start());
  const stream = await streams.createNewResumableStream(id, () => turn(sources.get(session), message));
  const drained = stream.pipeTo(new WritableStream()); // nobody views it here
  drained.catch((error) => process.exit(console.error(error) ?? 1));
}

const server = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request.setEncoding("utf8")) body += piece;
  await begin(JSON.parse(body));
  response.writeHead(202).end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.on("SIGTERM", () => process.exit(0));

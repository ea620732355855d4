// resumable-stream's following side: a viewer's request begins a turn in the worker, then follows it through Redis. Prints its port.
//
//     node edge.mjs WORKER REDIS
import { Agent, createServer, request as ask } from "node:http";
import { Readable } from "node:stream";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream";

const [, , worker, url] = process.argv;
const publisher = createClient({ url });
const subscriber = createClient({ url });
await Promise.all([publisher.connect(), subscriber.connect()]);
const streams = createResumableStreamContext({ waitUntil: null, publisher, subscriber });
const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** Has the worker begin a turn. */
function begin(turn) {
  return new Promise((resolve, reject) => {
    const asked = ask({ host: "127.0.0.1", port: worker, method: "POST", agent }, (answer) => {
      answer.resume().on("end", resolve);
    });
    asked.on("error", reject).end(JSON.stringify(turn));
  });
}

let turns = 0;
const server = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request.setEncoding("utf8")) body += piece;
  const id = `turn-${turns++}`;
  await begin({ id, ...JSON.parse(body) });
  const stream = await streams.resumeExistingStream(id);
  response.writeHead(stream ? 200 : 410, { "Content-Type": "text/event-stream" });
  if (stream) Readable.fromWeb(stream).pipe(response);
  else response.end();
});
server.listen(0, "127.0.0.1", 2048, () => console.log(server.address().port));
process.on("SIGTERM", () => process.exit(0));

// A proxy that cuts connections: each after some bytes from the server, until it has cut as often as wanted.

import { createConnection, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";

export interface Proxy {
  url: string;
  /** Connections cut so far. */
  cuts: number;
  /** Cuts, and refuses, everything until it is called again with false. */
  down(is: boolean): void;
  close(): Promise<void>;
}

/**
 * `cutAfter` says after how many bytes of the server's the next connection is cut; null lets it live. One that is to be
 * cut does not bring `last`: however slow the machine is, what is wanted does not end before all cuts were made.
 */
export async function cuttingProxy(target: string, cutAfter: (cuts: number) => number | null, last = "turn_completed"): Promise<Proxy> {
  const { hostname, port } = new URL(target);
  const open = new Set<Socket>();
  let isDown = false;
  const server = createServer((near) => {
    const far = createConnection(Number(port), hostname);
    let left = cutAfter(proxy.cuts);
    const cut = () => {
      near.resetAndDestroy();
      far.destroy();
    };
    open.add(near).add(far);
    for (const [socket, other] of [[near, far], [far, near]] as const) {
      socket.on("error", () => other.destroy()).on("close", () => (open.delete(socket), other.end()));
    }
    if (isDown) return cut();
    near.pipe(far);
    far.on("data", (bytes: Buffer) => {
      if (left === null) return near.write(bytes);
      const held = bytes.indexOf(last);
      if (held >= 0) left = Math.min(left, held);
      const allowed = bytes.subarray(0, left);
      left -= allowed.length;
      if (left > 0) return near.write(allowed);
      left = null;
      proxy.cuts += 1;
      return allowed.length > 0 ? near.write(allowed, cut) : cut();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: Proxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cuts: 0,
    down(is) {
      isDown = is;
      if (is) for (const socket of open) socket.destroy();
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open) socket.destroy();
      }),
  };
  return proxy;
}

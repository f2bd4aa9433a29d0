/**
 * A worker thread that loads a port: requests begin at a fixed rate whether or not earlier ones are answered, each on a free keep-alive
 * connection. Where none is free the request is left out: its sender would still be waiting for an earlier answer.
 */
import { connect, type Socket } from "node:net";
import { parentPort, workerData } from "node:worker_threads";

/** What the worker is given. */
export interface OpenLoopLoad {
  readonly port: number;
  readonly ratePerSecond: number;
  readonly durationMs: number;
  /** Answers in the time before are not counted. */
  readonly settleMs: number;
  readonly connections: number;
  /** Headers of each kind of request, by name; they take turns. */
  readonly kinds: Readonly<Record<string, string>>;
}

/** What it saw: one entry an answer. */
export interface LoadAnswer {
  readonly kind: string;
  readonly status: number;
  readonly ms: number;
}

async function run({
  port,
  ratePerSecond,
  durationMs,
  settleMs,
  connections,
  kinds,
}: OpenLoopLoad): Promise<LoadAnswer[]> {
  const answers: LoadAnswer[] = [];
  const names = Object.keys(kinds);
  const free = await Promise.all(Array.from({ length: connections }, () => open(port)));
  const started = performance.now();
  let sent = 0;
  let underWay = 0;
  while (performance.now() - started < durationMs) {
    const due = ((performance.now() - started) * ratePerSecond) / 1_000;
    for (; sent < due; sent++) {
      const socket = free.shift();
      if (socket === undefined) continue;
      const kind = names[sent % names.length] as string;
      const intended = started + (sent * 1_000) / ratePerSecond;
      underWay++;
      void ask(socket, kind === "health" ? "/healthz" : "/", kinds[kind] as string).then((status) => {
        underWay--;
        free.push(socket);
        if (intended - started >= settleMs) answers.push({ kind, status, ms: performance.now() - intended });
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const giveUp = performance.now() + 5_000;
  while (underWay > 0 && performance.now() < giveUp) await new Promise((resolve) => setTimeout(resolve, 5));
  for (const socket of free) socket.destroy();
  if (underWay > 0) throw new Error(`${underWay} requests were never answered`);
  return answers;
}

function open(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    socket.once("error", reject).once("connect", () => resolve(socket));
  });
}

/** Gives the status; answers here are small, so each comes in few pieces and ends with its Content-Length. */
function ask(socket: Socket, path: string, headers: string): Promise<number> {
  return new Promise((resolve) => {
    let text = "";
    const onData = (chunk: Buffer) => {
      text += chunk.toString("latin1");
      const head = text.indexOf("\r\n\r\n");
      const length = /\r\ncontent-length: (\d+)/i.exec(text)?.[1];
      if (head < 0 || length === undefined || text.length < head + 4 + Number(length)) return;
      socket.off("data", onData);
      resolve(Number(text.slice(9, 12)));
    };
    socket.on("data", onData);
    socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n${headers}\r\n`);
  });
}

parentPort?.postMessage(await run(workerData as OpenLoopLoad));

/**
 * A payment provider as a process of its own, for development, tests and rehearsals: it moves no money, and behaves as badly
 * as real ones do when told to. `PROVIDER_API_KEY` and `PROVIDER_WEBHOOK_SECRET` come from the environment, everything else
 * by flags (see `behaviour.ts`). Prints one line with its address when it is ready, and listens on 127.0.0.1 only.
 */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { seededRandom } from "rungs";
import { readBehaviour } from "./behaviour.ts";
import { Charges } from "./charges.ts";
import { openJournal } from "./journal.ts";
import { NoticeSender } from "./notices.ts";
import { fakeProviderServer } from "./server.ts";

async function main(): Promise<void> {
  const behaviour = readBehaviour(process.argv.slice(2), process.env);
  const [apiKey, secret] = ["PROVIDER_API_KEY", "PROVIDER_WEBHOOK_SECRET"].map((name) => {
    const value = process.env[name];
    if (value === undefined || value.length < 16) throw new Error(`env ${name} must have at least 16 characters.`);
    return value;
  }) as [string, string];
  const journal = openJournal(behaviour.dataFolder);
  const random = seededRandom(behaviour.seed);
  const charges = new Charges(journal);
  const notices = new NoticeSender({ charges, secret, behaviour, random });
  const server = fakeProviderServer({ charges, notices, behaviour, apiKey, random });
  server.listen(behaviour.port, "127.0.0.1");
  await once(server, "listening");

  let isEnding = false;
  const end = () => {
    if (isEnding) return;
    isEnding = true;
    notices.stop();
    server.close(() => journal.close());
    server.closeAllConnections();
    process.stdin.destroy();
  };
  process.once("SIGTERM", end);
  // A terminal's Ctrl-C goes to all its processes: whoever started this one ends it when the last charge is settled.
  process.on("SIGINT", () => {
    if (!behaviour.endsWithStdin) end();
  });
  if (behaviour.endsWithStdin) process.stdin.once("end", end).once("error", end).resume();

  process.stdout.write(`Payment provider ready at http://127.0.0.1:${(server.address() as AddressInfo).port}\n`);
  notices.wake();
}

await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});

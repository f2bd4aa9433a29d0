/** A program that starts an embedded database, says how it went, and waits to be told to stop: for tests that kill it. */
import { startEmbeddedPostgres } from "../../src/database/drivers/embedded-postgres.ts";

const [directory = ""] = process.argv.slice(2);
try {
  const server = await startEmbeddedPostgres({ directory });
  await server.announce({ address: "http://test" });
  process.stdout.write(`${server.origin}\n`);
  process.once("SIGINT", () => server.stop().then(() => process.exit(0)));
  setInterval(() => {}, 1_000);
} catch (error) {
  process.stdout.write(`${(error as { code?: string }).code}\n`);
}

/** A companion: says where it listens, and comes back to the same port. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

const before = process.env["HELPER_URL"];
const server = createServer((_request, response) => response.end("helped"));
server.listen(before === undefined ? 0 : Number(new URL(before).port), "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(
    `${JSON.stringify({ HELPER_URL: `http://127.0.0.1:${port}`, HELPER_KEY: "a secret of the helper" })}\n`,
  );
});

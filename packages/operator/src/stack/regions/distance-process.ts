/** The program of a stack's distance: a relay on the ports that the launcher gives it. */
import { type DistanceRoute, startDistanceRelay } from "./distance-relay.ts";

const { roundTripMs, routes } = JSON.parse(process.env["RUNGS_DISTANCE"] ?? "{}") as {
  readonly roundTripMs?: number;
  readonly routes?: readonly DistanceRoute[];
};
if (roundTripMs === undefined || routes === undefined) {
  process.stderr.write("This program is started by rungs up --regions.\n");
  process.exitCode = 2;
} else {
  const relay = await startDistanceRelay({ routes, roundTripMs });
  process.once("SIGTERM", () => void relay.stop());
  process.stdout.write(`${routes.map(({ name, port, to }) => `${name}: ${port} to ${to ?? "itself"}`).join(", ")}\n`);
}

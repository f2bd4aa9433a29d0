/** Uploads with a bucket in place of the folder: the same journey, on a real S3 server. */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { type RunningApp, startApp } from "rungs/app";
import { env, resolveTopology } from "rungs/topology";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestS3, type TestS3 } from "../../../packages/runtime/test/storage/support/s3-server.ts";
import conduit from "../src/app.ts";
import type { Tables } from "../src/schema.ts";
import { registered } from "./support/client.ts";
import { picture, untilState, upload, video } from "./support/media.ts";

let s3: TestS3;
let app: RunningApp<Tables>;
let folder: string;

beforeAll(async () => {
  s3 = await startTestS3();
  folder = await mkdtemp(join(tmpdir(), "conduit-test-"));
  await chmod(folder, 0o755);
  const { bucket, region, accessKeyId, secretAccessKey } = s3.credentials;
  const storage = {
    url: `s3://${bucket}`,
    region,
    endpoint: s3.endpoint,
    accessKeyId: env("TEST_S3_ID"),
    secretAccessKey: env("TEST_S3_SECRET"),
  };
  const { topology } = resolveTopology({
    file: { name: "rungs.config.ts", content: { storage } },
    flags: { port: "0", dir: folder },
  });
  const environment = { ...process.env, TEST_S3_ID: accessKeyId, TEST_S3_SECRET: secretAccessKey };
  app = await startApp(conduit, { topology, log: pino({ level: "fatal" }), environment });
});
afterAll(async () => {
  await app?.stop();
  await s3?.close();
  await rm(folder, { recursive: true, force: true });
});

it("keeps, processes, serves and deletes uploads in the bucket", async () => {
  const alice = await registered(app.address, "alice");
  for (const [purpose, file] of [
    ["image", await picture()],
    ["video", await video()],
  ] as const) {
    const { body } = await upload(app.address, alice, purpose, file);
    const done = await untilState(alice, body.upload.id, "ready", "failed");
    expect(done).toMatchObject({ state: "ready", message: null });
    const part = await fetch(`${app.address}${done.media}`, { headers: { range: "bytes=4-11" } });
    expect([part.status, (await part.arrayBuffer()).byteLength]).toEqual([206, 8]);
    expect((await alice.delete(`/uploads/${done.id}`)).status).toBe(204);
    await expect
      .poll(() => app.context.storage.list({ prefix: "media/", limit: 1_000 }), { timeout: 10_000 })
      .toEqual([]);
  }
  expect(s3.seen.some(({ method, path }) => method === "PUT" && path.includes("/originals/"))).toBe(true);
});

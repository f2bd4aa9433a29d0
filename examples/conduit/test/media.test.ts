/** Uploads over HTTP: sent, processed in the background, shown, deleted; the same at every rung and number of shards. */
import { readdir, utimes } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Upload } from "../src/domain/model.ts";
import { orphansDue, videosDue } from "../src/media/media-events.ts";
import { originalKey, originalPrefix, renditionPrefix } from "../src/media/upload-rules.ts";
import { type Client, client, registered } from "./support/client.ts";
import { type OwnFfmpeg, ownFfmpeg, picture, untilState, upload, video } from "./support/media.ts";
import { type ConduitAtRung, metricSum, startConduitAt, targets } from "./support/rungs.ts";

const places = targets([{ shards: 3, cache: "on" }], { rungs: [5], more: [{ shards: 1, cache: "on" }] });

describe.each(places)("uploads at $title", (target) => {
  let conduit: ConduitAtRung;
  let ffmpeg: OwnFfmpeg;
  let alice: Client;
  let bob: Client;
  let nobody: Client;
  let photo: Buffer;
  let film: Buffer;

  beforeAll(async () => {
    [photo, film, ffmpeg] = await Promise.all([picture(), video(), ownFfmpeg()]);
    conduit = await startConduitAt(target, { environment: ffmpeg.environment });
    nobody = client(conduit.url);
    alice = await registered(conduit.url, "alice");
    bob = await registered(conduit.url, "bob");
  });
  afterAll(async () => {
    await conduit?.stop();
    await ffmpeg?.remove();
  });

  const send = (who: Client, purpose: string, file: Buffer, name?: string) =>
    upload(conduit.url, who, purpose, file, name);
  const sent = async (purpose: string, file: Buffer, name?: string): Promise<Upload> => {
    const answer = await send(alice, purpose, file, name);
    expect([answer.status, answer.body]).toMatchObject([202, { upload: { state: "received" } }]);
    return answer.body.upload;
  };
  const ready = async (purpose: string, file: Buffer, name?: string) =>
    untilState(alice, (await sent(purpose, file, name)).id, "ready", "failed");
  const get = (path: string | null, headers: Record<string, string> = {}) =>
    fetch(`${conduit.url}${path}`, { headers });
  const ownerOf = ({ renditions }: Upload) => (renditions[0]?.url ?? "").split("/")[2] as string;
  const stored = async (prefix: string) =>
    (await conduit.app.context.storage.list({ prefix, limit: 1_000 })).map(({ key }) => key);

  it("answers at once with where to ask, and makes a picture into several sizes without its metadata", async () => {
    const answer = await send(alice, "image", photo);
    expect(answer.status).toBe(202);
    expect(answer.headers.get("location")).toBe(answer.body.upload.url);
    const { url } = answer.body.upload;
    expect(url).toBe(`/api/uploads/${answer.body.upload.id}`);
    const done = await untilState(alice, answer.body.upload.id, "ready", "failed");
    expect(done).toMatchObject({ state: "ready", progress: 100, message: null, purpose: "image" });
    expect(done.markdown).toBe(`![A picture 1](${done.media})`);
    expect(done.renditions.map(({ name, widthPx }) => [name, widthPx])).toEqual([
      ["w1280.webp", 1_280],
      ["w640.webp", 640],
      ["w1280.avif", 1_280],
      ["w640.avif", 640],
    ]);
    for (const rendition of done.renditions) {
      const file = await get(rendition.url);
      expect([file.status, file.headers.get("content-type")]).toEqual([200, rendition.contentType]);
      expect(file.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
      expect(file.headers.get("x-content-type-options")).toBe("nosniff");
      const content = Buffer.from(await file.arrayBuffer());
      expect(content.length).toBe(rendition.sizeBytes);
      const metadata = await sharp(content).metadata();
      expect([metadata.width, metadata.exif]).toEqual([rendition.widthPx, undefined]);
    }
  });

  it("keeps a private picture to those who hold its signed address, until that ends", async () => {
    const answer = await upload(conduit.url, alice, "image", photo, "diary.jpg", "private");
    expect([answer.status, answer.body.upload]).toMatchObject([202, { isPrivate: true, markdown: null }]);
    const done = await untilState(alice, answer.body.upload.id, "ready", "failed");
    expect(done).toMatchObject({ state: "ready", isPrivate: true, markdown: null });
    const media = done.media as string;
    expect(media).toMatch(/^\/private\/[0-9a-f/-]+\/w1280\.webp\?expires=\d+&signature=[\w-]{43}$/);
    const whole = await get(media);
    expect([whole.status, whole.headers.get("content-type")]).toEqual([200, "image/webp"]);
    expect(whole.headers.get("cache-control")).toMatch(/^private, max-age=\d+, immutable$/);
    expect(whole.headers.get("cross-origin-resource-policy")).toBe("same-origin");
    const bytes = Buffer.from(await whole.arrayBuffer());
    const part = await get(media, { range: "bytes=10-29" });
    expect([part.status, Buffer.from(await part.arrayBuffer())]).toEqual([206, bytes.subarray(10, 30)]);
    // Nobody gets it without the address: by its path, by the public one, by another's signature, or by a later end.
    const [path = "", query = ""] = media.split("?");
    const other = done.renditions.find(({ name }) => name === "w640.webp")?.url.split("?")[1];
    const later = query.replace(/expires=(\d+)/, (_, end) => `expires=${Number(end) + 60}`);
    for (const refused of [
      path,
      path.replace("/private/", "/media/"),
      `${path}?${other}`,
      `${path}?${later}`,
      `${media}x`,
    ])
      expect((await get(refused, { authorization: `Token ${alice.token}` })).status, refused).toBe(404);
    expect((await bob.get(`/uploads/${done.id}`)).status).toBe(404);
    const brief = conduit.app.context.signedPaths.sign(path, { validMs: 0 });
    await expect.poll(async () => (await get(brief)).status, { timeout: 5_000 }).toBe(404);
    expect((await upload(conduit.url, alice, "avatar", photo, "me.jpg", "private")).status).toBe(422);
    expect((await upload(conduit.url, alice, "image", photo, "me.jpg", "secret")).status).toBe(422);
    expect((await alice.delete(`/uploads/${done.id}`)).status).toBe(204);
    await expect.poll(async () => (await get(media)).status, { timeout: 20_000 }).toBe(404);
  });

  it("makes an avatar the user's picture, and the latest one wins", async () => {
    const first = await ready("avatar", photo);
    const second = await ready("avatar", await picture(300, 500));
    expect([first.markdown, second.media]).toEqual([null, expect.stringMatching(/^\/media\/.*\/a256\.webp$/)]);
    expect((await alice.get("/user")).body.user.image).toBe(second.media);
    expect((await bob.get("/profiles/alice")).body.profile.image).toBe(second.media);
    const { width, height } = await sharp(Buffer.from(await (await get(second.media)).arrayBuffer())).metadata();
    expect([width, height]).toEqual([256, 256]);
    expect((await alice.put("/user", { user: { image: second.media, bio: "kept" } })).status).toBe(200);
    expect((await alice.delete(`/uploads/${second.id}`)).status).toBe(204);
    expect((await alice.get("/user")).body.user.image).toBe("");
  });

  it("makes a video playable, serves it in parts, and tells of it", async () => {
    const done = await ready("video", film, "holiday.mp4");
    expect(done).toMatchObject({ state: "ready", message: null, media: expect.stringMatching(/video\.mp4$/) });
    expect(done.renditions.map(({ name, contentType }) => [name, contentType])).toEqual([
      ["poster.webp", "image/webp"],
      ["video.mp4", "video/mp4"],
    ]);
    const whole = await get(done.media);
    const content = Buffer.from(await whole.arrayBuffer());
    expect([whole.status, whole.headers.get("accept-ranges"), content.toString("latin1", 4, 8)]).toEqual([
      200,
      "bytes",
      "ftyp",
    ]);
    const part = await get(done.media, { range: "bytes=100-199" });
    expect([part.status, part.headers.get("content-range")]).toEqual([206, `bytes 100-199/${content.length}`]);
    expect(Buffer.from(await part.arrayBuffer()).equals(content.subarray(100, 200))).toBe(true);
    expect((await get(done.media, { range: `bytes=${content.length}-` })).status).toBe(416);
    expect((await get(done.media, { "if-none-match": whole.headers.get("etag") as string })).status).toBe(304);
    expect((await get(done.poster)).headers.get("content-type")).toBe("image/webp");
    await expect
      .poll(async () => (await alice.get("/notifications")).body.notifications[0], { timeout: 10_000 })
      .toMatchObject({ kind: "video", details: { uploadId: done.id, state: "ready" } });
  });

  it("says of a file that cannot be read that it failed, and keeps nothing of it", async () => {
    const done = await ready("image", photo.subarray(0, 5_000));
    expect(done).toMatchObject({ state: "failed", media: null, message: expect.stringMatching(/damaged/) });
    const own = await stored(originalPrefix);
    await expect.poll(async () => own.filter((key) => key.includes(done.id))).toEqual([]);
  });

  it("never serves an original, nor what leads out of the folder", async () => {
    const done = await ready("image", photo);
    const owner = ownerOf(done);
    for (const path of [
      `/media/${owner}/${done.id}/original`,
      `/media/${owner}/${done.id}`,
      `/media/${owner}/..%2f..%2foriginals/x.webp`,
      `/media/..%2foriginals/${owner}/${done.id}.webp`,
      `/media/${owner}/${done.id}/w9999.webp`,
      `/${originalKey(owner, done.id)}`,
      "/media/",
    ]) {
      expect([path, (await get(path)).status]).toEqual([path, 404]);
    }
  });

  it("lets nobody else see or delete an upload, or know that there is one", async () => {
    const mine = await ready("image", photo);
    for (const [who, status] of [
      [bob, 404],
      [nobody, 401],
    ] as const) {
      expect((await who.get(`/uploads/${mine.id}`)).status).toBe(status);
      expect((await who.delete(`/uploads/${mine.id}`)).status).toBe(status);
    }
    expect((await bob.get("/uploads")).body).toEqual({ uploads: [] });
    expect((await nobody.get("/uploads")).status).toBe(401);
    expect((await send(nobody, "image", photo)).status).toBe(401);
    expect((await alice.get(`/uploads/${mine.id}`)).body.upload.state).toBe("ready");
    for (const id of ["1", "..", "%00", mine.id.toUpperCase(), "ffffffff-ffff-7fff-bfff-ffffffffffff"]) {
      // nginx refuses a zero byte before the app sees it.
      const status = id === "%00" && target.rung > 1 ? 400 : 404;
      expect([id, (await alice.get(`/uploads/${id}`)).status]).toEqual([id, status]);
      expect([id, (await alice.delete(`/uploads/${id}`)).status]).toEqual([id, status]);
    }
  });

  it("lists own uploads, newest first, page by page", async () => {
    const all = (await alice.get("/uploads?limit=100")).body.uploads as Upload[];
    expect(all.length).toBeGreaterThan(2);
    expect(all.map(({ id }) => id)).toEqual([...all.map(({ id }) => id)].sort().reverse());
    const [first, second] = all;
    const page = await alice.get(`/uploads?limit=1&before=${first?.id}`);
    expect(page.body.uploads).toEqual([second]);
    expect((await alice.get("/uploads?before=nonsense")).status).toBe(422);
    expect((await alice.get("/uploads?limit=0")).status).toBe(422);
  });

  it.each([
    ["a page", Buffer.from("<!doctype html><script>alert(1)</script>"), "image", 415],
    ["a drawing", Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'), "avatar", 415],
    ["a picture as a video", Buffer.from("GIF89a\x01\x00\x01\x00\x00\x00\x00;"), "video", 415],
    ["for no purpose", Buffer.from("GIF89a"), "nothing", 422],
    ["too large a picture", Buffer.alloc(11_000_000, "GIF89a"), "avatar", 413],
  ])("refuses %s", async (_, file, purpose, status) => {
    const before = await stored(originalPrefix);
    const answer = await send(alice, purpose, file);
    expect([answer.status, Object.keys(answer.body.errors)]).toEqual([status, [status === 422 ? "purpose" : "file"]]);
    expect(await stored(originalPrefix)).toEqual(before);
  });

  it("deletes an upload with all that was made of it", async () => {
    const done = await ready("image", photo);
    const prefix = `${renditionPrefix}${ownerOf(done)}/${done.id}/`;
    expect(await stored(prefix)).toHaveLength(4);
    expect((await alice.delete(`/uploads/${done.id}`)).status).toBe(204);
    expect((await alice.get(`/uploads/${done.id}`)).status).toBe(404);
    await expect.poll(() => stored(prefix), { timeout: 10_000 }).toEqual([]);
    expect((await get(done.media)).status).toBe(404);
  });

  it("leaves nothing of an upload that is deleted while it is processed", async () => {
    const { id } = await sent("image", photo);
    expect((await alice.delete(`/uploads/${id}`)).status).toBe(204);
    const left = async () => {
      const all = [...(await stored(originalPrefix)), ...(await stored(renditionPrefix))];
      return all.filter((key) => key.includes(id));
    };
    // The job that was under way may store until it finds the upload gone.
    await expect.poll(idle, { timeout: 30_000 }).toBe(true);
    await expect.poll(left, { timeout: 10_000 }).toEqual([]);
  });

  /** Whether no message of the service waits or is at work. */
  async function idle(): Promise<boolean> {
    return (await metricSum(conduit, /queue_handler\{handler="media\.[a-z]+",kind="running"\} (\d+)/)) === 0;
  }

  it("keeps a video while ffmpeg is missing, says what to install, and goes on by itself", {
    timeout: 90_000,
  }, async () => {
    await ffmpeg.hide();
    const { id } = await sent("video", film);
    const waiting = await untilState(alice, id, "waiting", "ready", "failed");
    expect(waiting).toMatchObject({ state: "waiting", message: expect.stringMatching(/RUNGS_FFMPEG/) });
    const look = () => conduit.app.context.db.home.transaction(async (tx) => tx.publish(videosDue, {}));
    await look();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await untilState(alice, id, "waiting", "ready", "failed")).state).toBe("waiting");
    await ffmpeg.show();
    await look();
    expect((await untilState(alice, id, "ready", "failed")).state).toBe("ready");
  });

  it("ends an upload that nothing works on any more, and leaves one that is worked on", async () => {
    const uploads = [await ready("image", photo), await ready("image", photo)] as const;
    const { db } = conduit.app.context;
    const owner = ownerOf(uploads[0]);
    const setProcessing = ({ id }: Upload, updatedAt: Date) =>
      db
        .for(owner)
        .updateTable("uploads")
        .set({ state: "processing", updated_at: updatedAt } as never)
        .where("owner_id", "=", owner)
        .where("upload_id", "=", id)
        .execute();
    await setProcessing(uploads[0], new Date(Date.now() - 2 * 60 * 60_000));
    await setProcessing(uploads[1], new Date(Date.now() - 80 * 60_000));
    await db.home.transaction(async (tx) => tx.publish(videosDue, {}));
    expect((await untilState(alice, uploads[0].id, "failed")).message).toMatch(/could not be processed/);
    expect((await alice.get(`/uploads/${uploads[1].id}`)).body.upload.state).toBe("processing");
  });

  it("removes objects that no upload refers to when they are old, and no others", { timeout: 90_000 }, async () => {
    const done = await ready("image", photo);
    const owner = ownerOf(done);
    const { storage, db } = conduit.app.context;
    const gone = "01900000-0000-7000-8000-000000000000";
    const put = (key: string) =>
      storage.put(key, Readable.from(["x"]), { contentType: "image/webp", sizeBytesMax: 10 });
    const old = [originalKey(owner, gone), `media/${owner}/${gone}/w640.webp`, `media/${owner}/${done.id}/stray.webp`];
    const young = `media/${owner}/${gone}/w1280.webp`;
    for (const key of old) await put(key);
    const objects = join(conduit.folder, "objects");
    for (const entry of await readdir(objects, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) await utimes(join(entry.parentPath, entry.name), new Date(0), new Date(0));
    }
    await put(young);
    for (const prefix of [originalPrefix, renditionPrefix])
      await db.home.transaction(async (tx) => tx.publish(orphansDue, { prefix }));
    const all = async () => [...(await stored(originalPrefix)), ...(await stored(renditionPrefix))];
    await expect.poll(async () => (await all()).filter((key) => old.includes(key)), { timeout: 20_000 }).toEqual([]);
    const left = await all();
    expect(left).toContain(young);
    for (const { url } of done.renditions) expect(left).toContain(url.slice(1));
    const opened = await storage.open(done.renditions[0]?.url.slice(1) as string);
    expect((await buffer((opened as { body: Readable }).body)).length).toBe(done.renditions[0]?.sizeBytes);
  });

  it("bounds what one user may have waiting, also when all is sent at once", async () => {
    await ffmpeg.hide();
    const carl = await registered(conduit.url, "carl");
    const answers = await Promise.all(Array.from({ length: 14 }, () => send(carl, "video", film)));
    const statuses = answers.map(({ status }) => status).sort();
    expect(statuses).toEqual([...Array(10).fill(202), ...Array(4).fill(429)]);
    const refused = answers.find(({ status }) => status === 429);
    expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThan(0);
    const carlsId = answers.find(({ status }) => status === 202)?.body.upload.id;
    const originals = await stored(originalPrefix);
    expect(originals.filter((key) => key.includes(carlsId))).toHaveLength(1);
    await ffmpeg.show();
  });
});

/** What is decided about pictures and videos before any program touches them. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RungsError } from "../../src/kernel/errors.ts";
import { imageKindOf, renditionBox } from "../../src/media/image.ts";
import { progressReader, readProbe, videoLimitsDefault, videoSize } from "../../src/media/video.ts";

const side = fc.integer({ min: 1, max: 20_000 });
const shape = fc.record({ widthPx: side, heightPx: side });
const evenSide = fc.integer({ min: 1, max: 4_000 }).map((half) => 2 * half);

describe("the size of a rendition", () => {
  it("is even, within its box, never enlarged, and of the same shape but for rounding", () => {
    fc.assert(
      fc.property(shape, fc.record({ widthPxMax: evenSide, heightPxMax: evenSide }), (shown, box) => {
        const { widthPx, heightPx } = videoSize(shown, box);
        expect([widthPx % 2, heightPx % 2]).toEqual([0, 0]);
        expect(widthPx).toBeGreaterThanOrEqual(2);
        expect(heightPx).toBeGreaterThanOrEqual(2);
        expect(widthPx).toBeLessThanOrEqual(Math.max(2, Math.min(shown.widthPx, box.widthPxMax)));
        expect(heightPx).toBeLessThanOrEqual(Math.max(2, Math.min(shown.heightPx, box.heightPxMax)));
        const scale = Math.min(1, box.widthPxMax / shown.widthPx, box.heightPxMax / shown.heightPx);
        expect(Math.abs(widthPx - shown.widthPx * scale)).toBeLessThanOrEqual(2);
        expect(Math.abs(heightPx - shown.heightPx * scale)).toBeLessThanOrEqual(2);
      }),
    );
  });

  it("of a cut picture has the box's shape and fits into the picture", () => {
    fc.assert(
      fc.property(shape, side, side, (upright, widthPxMax, heightPxMax) => {
        const box = renditionBox(upright, { widthPxMax, heightPxMax, fit: "cover" });
        expect(box.widthPx).toBeLessThanOrEqual(Math.min(upright.widthPx, widthPxMax));
        expect(box.heightPx).toBeLessThanOrEqual(Math.min(upright.heightPx, heightPxMax));
        const scale = Math.min(1, upright.widthPx / widthPxMax, upright.heightPx / heightPxMax);
        expect(Math.abs(box.widthPx - widthPxMax * scale)).toBeLessThanOrEqual(1);
        expect(Math.abs(box.heightPx - heightPxMax * scale)).toBeLessThanOrEqual(1);
      }),
    );
  });
});

describe("progress", () => {
  it("is read alike however its lines are cut into pieces", () => {
    const report =
      "frame=1\nout_time_us=N/A\nout_time_us=40000\nout_time_ms=40000\nspeed=1x\nout_time_us=1500000\nprogress=end\n";
    fc.assert(
      fc.property(fc.array(fc.nat({ max: report.length }), { maxLength: 8 }), (cuts) => {
        const times: number[] = [];
        const read = progressReader((writtenMs) => times.push(writtenMs));
        const places = [0, ...cuts.sort((a, b) => a - b), report.length];
        places.slice(1).map((end, index) => read(report.slice(places[index], end)));
        expect(times).toEqual([40, 1_500]);
      }),
    );
  });
});

describe("headers", () => {
  const video = {
    index: 1,
    codec_type: "video",
    codec_name: "h264",
    width: 640,
    height: 360,
    avg_frame_rate: "30000/1001",
  };
  const headers = (change: object, format: object = {}) =>
    JSON.stringify({
      format: { format_name: "mov", nb_streams: 1, duration: "2.5", ...format },
      streams: [{ ...video, ...change }],
    });

  it("are read as shown on a screen", () => {
    const turned = headers({ side_data_list: [{}, { rotation: -90 }], sample_aspect_ratio: "4:3" });
    expect(readProbe(turned, videoLimitsDefault)).toEqual({
      ...{ durationMs: 2_500, widthPx: 360, heightPx: 853, frameRate: 30_000 / 1_001, container: "mov" },
      ...{ videoCodec: "h264", audioCodec: undefined, videoStream: 1, audioStream: undefined },
    });
  });

  it.each([
    ["0/0", "N/A"],
    ["x", "-1"],
    ["1/0", "Infinity"],
  ])("that say nonsense (%s, %s) say nothing", (avg_frame_rate, duration) => {
    const info = readProbe(
      headers({ avg_frame_rate, sample_aspect_ratio: avg_frame_rate }, { duration }),
      videoLimitsDefault,
    );
    expect(info).toMatchObject({ durationMs: undefined, frameRate: undefined, widthPx: 640, heightPx: 360 });
  });

  it("of any other form are refused for good", () => {
    const refuse = (json: string) => {
      try {
        readProbe(json, videoLimitsDefault);
      } catch (error) {
        expect(error).toBeInstanceOf(RungsError);
        expect((error as RungsError).code).toMatch(/^MEDIA_(UNREADABLE|LIMIT_EXCEEDED)$/);
        return;
      }
      expect.unreachable(`took ${json}`);
    };
    fc.assert(fc.property(fc.json(), refuse));
    for (const json of ["", "{", headers({ width: 0 }), headers({ codec_type: "audio" }), headers({ width: "640" })])
      refuse(json);
  });
});

describe("the kind of an image", () => {
  it("is told by its first bytes, and any bytes at all may come", () => {
    const heads: readonly (readonly [string, string])[] = [
      ["jpeg", "\xff\xd8\xff\xe1 and some more"],
      ["png", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR"],
      ["gif", "GIF89a0123456789"],
      ["webp", "RIFF\x10\0\0\0WEBPVP8 "],
      ["avif", "\0\0\0\x20ftypmif1\0\0\0\0mif1avif"],
    ];
    for (const [kind, head] of heads) expect(imageKindOf(Buffer.from(head, "latin1"))).toBe(kind);
    for (const head of [
      "",
      "\xff\xd8",
      "<svg xmlns='x'><rect/></svg>",
      "%PDF-1.7 and more",
      "\0\0\0\x20ftypheic\0\0\0\0mif1heic",
    ])
      expect(imageKindOf(Buffer.from(head, "latin1"))).toBeUndefined();
    const kinds = [...heads.map(([kind]) => kind), undefined];
    fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (head) => kinds.includes(imageKindOf(head))));
  });
});

/** The storage tier: files by key. Drivers: `rungs/storage/disk`, `rungs/storage/s3`; HTTP: `rungs/storage/fastify`. */
export { answerRange, type RangeAnswer, type RangeRequest } from "./http-range.ts";
export { checkObjectKey, isObjectKey } from "./object-key.ts";
export type { ByteRange, ObjectInfo, ObjectStore, OpenObject, PutOptions } from "./object-store.ts";
export { type OrphanSweep, type OrphanSweepResult, sweepOrphans } from "./orphans.ts";
export { createPathSigner, type PathSigner } from "./signed-path.ts";
export { sizeText, type UploadLimits, UploadRefusedError, uploadLimitsDefault } from "./upload.ts";

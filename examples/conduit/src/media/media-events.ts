/** What happens to uploads that others may want to know. */
import { defineEvent } from "rungs/queue";
import { z } from "zod";

const upload = z.object({ ownerId: z.uuid(), uploadId: z.uuid(), purpose: z.string().max(40) });

/** A picture has arrived and waits to be made into renditions. */
export const pictureReceived = defineEvent("upload.picture_received", upload);

/** A video has arrived and waits to be made into renditions. */
export const videoReceived = defineEvent("upload.video_received", upload);

/** An upload has been processed and can be shown. Key: the owner. */
export const uploadReady = defineEvent("upload.ready", upload);

/** An upload could not be processed, for good. Key: the owner. */
export const uploadFailed = defineEvent("upload.failed", upload);

/** An upload was deleted: its objects may go. */
export const uploadRemoved = defineEvent("upload.removed", upload);

/** It is time to look whether what was missing for videos is there now. */
export const videosDue = defineEvent("upload.videos_due", z.object({}));

/** It is time to look for objects without a row, from this key on. */
export const orphansDue = defineEvent(
  "upload.orphans_due",
  z.object({ prefix: z.string().max(100), after: z.string().max(600).optional() }),
);

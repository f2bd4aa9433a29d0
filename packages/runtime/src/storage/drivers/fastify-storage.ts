/** The storage tier on Fastify: objects as answers, and uploads from requests. */
export { type SendObjectOptions, sendObject } from "./fastify-objects.ts";
export {
  acceptUploads,
  type IncomingFile,
  type ReceivedUpload,
  type ReceiveUploadOptions,
  receiveUpload,
  uploadRoute,
} from "./fastify-uploads.ts";

/** The live tier: messages to the open pages of users. Served by `rungs/live/fastify`, carried by `rungs/live/local`. */
export type { FanOut, LiveMessage, LiveSender } from "./live.ts";
export type { EndReason, LiveSink, LiveStream, TopicRecord } from "./live-stream.ts";
export {
  createLive,
  type Live,
  type LiveOptions,
  type LiveStats,
  type OpenOptions,
  type RunningLive,
} from "./live-streams.ts";

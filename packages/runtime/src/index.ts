/** Rungs: what an app's code imports. Each tier has an entry point of its own, e.g. `rungs/database`. */

export {
  type AppDefinition,
  defineApp,
  defineService,
  type Service,
  type ServiceContext,
  type ServiceDefinition,
} from "./app/service.ts";
export { type Clock, systemClock } from "./kernel/clock.ts";
export {
  ConfigError,
  ConflictError,
  type ErrorCode,
  RungsError,
  UnavailableError,
  UnsupportedError,
} from "./kernel/errors.ts";
export { createLifecycle, type Lifecycle, runUntilSignal } from "./kernel/lifecycle.ts";
export type { Logger } from "./kernel/log.ts";
export { type Random, seededRandom, systemRandom, uuidV7 } from "./kernel/random.ts";
export { defineTopology, env } from "./topology/index.ts";

/** The part of a structured logger that Rungs calls; pino and Fastify's `log` satisfy it as they are. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A logger that drops everything: the default of a tier used alone. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

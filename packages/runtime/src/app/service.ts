/** What the developer of an app declares: services and the app that joins them. Data and functions only; nothing runs here. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Cache } from "../cache/index.ts";
import type { Call, ServedMethod } from "../call/index.ts";
import type { Database, Directory, NamedMigration, TableDeclaration } from "../database/index.ts";
import type { Clock } from "../kernel/clock.ts";
import { ConfigError } from "../kernel/errors.ts";
import type { Logger } from "../kernel/log.ts";
import type { Random } from "../kernel/random.ts";
import type { Live } from "../live/index.ts";
import type { Handler, Schedule } from "../queue/index.ts";
import type { LoginThrottle, Passwords, Sessions } from "../session/index.ts";
import type { ObjectStore, PathSigner } from "../storage/index.ts";
import type { Environment } from "../topology/index.ts";
import type { Assets } from "../web/assets.ts";
import type { ErrorAnswer } from "../web/index.ts";

/** The tiers, as a service's code sees them. `T`: the tables, as Kysely types them. */
export interface ServiceContext<T> {
  readonly db: Database<T>;
  readonly cache: Cache;
  readonly sessions: Sessions;
  readonly passwords: Passwords;
  readonly loginThrottle: LoginThrottle;
  readonly assets: Assets;
  /** Sends to open pages, and serves their streams. */
  readonly live: Live;
  /** Where uploaded files are kept. */
  readonly storage: ObjectStore;
  /** Addresses of private files, for those who may see them to hold; all processes know each other's. */
  readonly signedPaths: PathSigner;
  /** Calls a method of a service, in this process or wherever it runs. */
  readonly call: Call;
  /** Opens a name space whose names are unique over all shards. One object a space. */
  directory(space: string): Directory;
  /** Where the app's own settings and secrets are read from; the process's environment unless the start was given another. */
  readonly environment: Environment;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** One service: its tables, how they came to be, and its routes. */
export interface ServiceDefinition<T> {
  /** The tables it owns and where their rows live. */
  readonly tables?: Readonly<Record<string, TableDeclaration>>;
  /** Folder of migrations as a file URL, or the migrations themselves. */
  readonly migrations?: string | URL | readonly NamedMigration[];
  /**
   * What it does when something happened, by the handler's name. Stored messages carry "service.name": rename a handler only
   * when none is waiting.
   */
  readonly on?: Readonly<Record<string, Handler<ServiceContext<T>>>>;
  /** What it answers when other services call; each declared as "service.method", see `rungs/call`. */
  readonly methods?: readonly ServedMethod<ServiceContext<T>>[];
  /** Messages published again and again, by name. */
  readonly schedules?: Readonly<Record<string, Schedule>>;
  /** Registers its routes on Fastify; called once, before the server listens. */
  readonly routes?: (fastify: FastifyInstance, context: ServiceContext<T>) => void | Promise<void>;
}

/** A named service; made by {@link defineService}. */
export interface Service<T = never> extends ServiceDefinition<T> {
  readonly name: string;
}

/** Declares a service. The name is lower-case letters, digits and underscores: it becomes part of table names. */
export function defineService<T>(name: string, definition: ServiceDefinition<T>): Service<T> {
  if (!/^[a-z][a-z0-9_]{0,29}$/.test(name)) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `Service name "${name}" must be 1 to 30 of a-z, 0-9 and _, starting with a letter: it becomes part of table names.`,
    );
  }
  return { ...definition, name };
}

/** An app: its services and its static files. */
export interface AppDefinition<T> {
  readonly name: string;
  readonly services: readonly Service<T>[];
  /** Folders of static files, as file URLs; served under content-hashed names. */
  readonly assets?: readonly (string | URL)[];
  /** Answers an error, an unknown address included, in the app's own form; default: JSON `{"errors":{...}}`. */
  readonly answerError?: (request: FastifyRequest, reply: FastifyReply, answer: ErrorAnswer) => unknown;
}

/** Declares an app. */
export function defineApp<T>(definition: AppDefinition<T>): AppDefinition<T> {
  return definition;
}

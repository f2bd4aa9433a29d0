/** The routes of an app's services, as they are registered: the launcher tells a balancer by them which requests are for whom. */
import type { FastifyInstance } from "fastify";

/** A route as a service registered it. */
export interface ServiceRoute {
  readonly service: string;
  readonly method: string;
  /** As Fastify takes it, with the prefixes of plugins: "/articles/:slug". */
  readonly path: string;
}

/** Collects routes. */
export interface RouteList {
  /** Notes what is registered in this scope from now on. */
  watch(scope: FastifyInstance, service: string): void;
  all(): readonly ServiceRoute[];
}

/** Makes an empty list. */
export function routeList(): RouteList {
  const routes: ServiceRoute[] = [];
  return {
    watch(scope, service) {
      scope.addHook("onRoute", ({ method, url }) => {
        for (const each of [method].flat()) routes.push({ service, method: each, path: url });
      });
    },
    all: () => routes,
  };
}

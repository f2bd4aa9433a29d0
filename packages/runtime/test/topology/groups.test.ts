import { describe, expect, it } from "vitest";
import {
  describeTopology,
  diffTopologies,
  env,
  groupOfService,
  groupSizes,
  groupsOf,
  presetFor,
  processWork,
  resolveTopology,
  type TopologyInput,
} from "../../src/topology/index.ts";

const topologyOf = (content: TopologyInput, flags = {}, environment = {}) =>
  resolveTopology({ file: { name: "f", content }, flags, environment }).topology;
const services = ["articles", "feed", "payments", "mail"];
const work = (content: TopologyInput) => groupsOf(topologyOf(content), services);

function problems(content: unknown): string {
  try {
    resolveTopology({ file: { name: "f", content } });
  } catch (error) {
    expect(error).toMatchObject({ name: "ConfigError", code: "CONFIG_INVALID" });
    return (error as Error).message;
  }
  throw new Error("the topology was accepted");
}

describe("groups of processes", () => {
  it("are one that does everything where nothing is said", () => {
    expect(work({ web: { processes: 3 } })).toEqual([
      { name: "web", processes: 3, routes: services, handlers: services, url: undefined },
    ]);
    expect(processWork(topologyOf({}), services)).toEqual({ routes: services, handlers: services });
  });

  it("leave routes to web and take its handlers as workers", () => {
    expect(work({ services: { workers: { processes: 2 } } })).toMatchObject([
      { name: "web", routes: services, handlers: [] },
      { name: "workers", processes: 2, routes: [], handlers: services },
    ]);
  });

  it("keep a service together, routes and handlers, in the group that names it", () => {
    const split: TopologyInput = {
      services: { workers: {}, payments: { processes: 2 }, reading: { services: ["feed", "articles"] } },
    };
    const groups = work(split);
    expect(groups).toMatchObject([
      { name: "web", routes: ["mail"], handlers: [] },
      { name: "workers", processes: 1, routes: [], handlers: ["mail"] },
      { name: "payments", processes: 2, routes: ["payments"], handlers: ["payments"] },
      { name: "reading", processes: 1, routes: ["articles", "feed"], handlers: ["articles", "feed"] },
    ]);
    expect(groupOfService(groups, "feed")?.name).toBe("reading");
    expect(groupOfService(groups, "mail")?.name).toBe("web");
    expect(groupOfService(groups, "none")).toBeUndefined();
    // Every service has one group for its routes and one for its handlers, whatever the settings.
    for (const service of services) {
      expect(groups.filter(({ routes }) => routes.includes(service))).toHaveLength(1);
      expect(groups.filter(({ handlers }) => handlers.includes(service))).toHaveLength(1);
    }
  });

  it("let web run the handlers of what is left where there are no workers", () => {
    expect(work({ services: { payments: {} } })).toMatchObject([
      { name: "web", routes: ["articles", "feed", "mail"], handlers: ["articles", "feed", "mail"] },
      { name: "payments", routes: ["payments"], handlers: ["payments"] },
    ]);
  });

  it("tell a process what its group does, and without a group everything", () => {
    const split: TopologyInput = { services: { workers: {}, payments: {} } };
    const of = (group: string) => processWork(topologyOf({ ...split, group }), services);
    expect(of("payments")).toMatchObject({ routes: ["payments"], handlers: ["payments"] });
    expect(of("workers")).toMatchObject({ routes: [], handlers: ["articles", "feed", "mail"] });
    expect(of("web")).toMatchObject({ routes: ["articles", "feed", "mail"], handlers: [] });
    expect(processWork(topologyOf(split), services)).toEqual({ routes: services, handlers: services });
  });

  it("refuse services that the app does not have, and say what was meant", () => {
    expect(() => work({ services: { payment: {} } })).toThrow(
      'services.payment: the app has no service "payment"; did you mean payments?',
    );
    expect(() => work({ services: { money: { services: ["bank"] } } })).toThrow(
      'services.money: the app has no service "bank"; it has articles, feed, payments, mail',
    );
  });

  it("know their sizes without the app", () => {
    expect(groupSizes(presetFor(5))).toEqual([
      { name: "web", processes: 4 },
      { name: "workers", processes: 2 },
    ]);
    const flags = { rung: "5", workers: "6" };
    expect(groupSizes(topologyOf({ services: { payments: {} } }, flags))).toEqual([
      { name: "web", processes: 4 },
      { name: "workers", processes: 6 },
      { name: "payments", processes: 1 },
    ]);
    expect(topologyOf({}, {}, { RUNGS_WORKERS: "3" }).services).toEqual({ workers: { processes: 3 } });
    // A group of the settings that says no number keeps that of the preset.
    expect(topologyOf({ services: { workers: {} } }, { rung: "5" }).services).toEqual({ workers: { processes: 2 } });
  });
});

describe("settings of groups", () => {
  it.each([
    [
      { services: { workers: { processes: 0 } } },
      "services.workers.processes: expected an integer from 1 to 256, got 0",
    ],
    [{ services: { "Pay!": {} } }, "expected a group's name of a-z, 0-9, _ and -"],
    [{ services: { "web-1": {} } }, "services.web-1: expected a group's name of a-z, 0-9, _ and -"],
    [{ services: { payments: { services: [] } } }, "services.payments.services: expected a list of 1 to 256 names"],
    [{ services: { payments: { proceses: 2 } } }, "did you mean services.payments.processes?"],
    [{ services: { web: { processes: 2 } } }, "services.web.processes: is set by web.processes; remove it here"],
    [{ services: { workers: { services: ["mail"] } } }, "services.workers.services: has every service without a group"],
    [{ services: { web: { services: ["mail"] } } }, "services.web.services: has every service without a group"],
    [{ services: { workers: { url: "http://h" } } }, "services.workers.url: has no effect: workers serve nobody"],
    [
      { services: { payments: {}, money: { services: ["payments"] } } },
      'services.money: names the service "payments", which services.payments has already; a service lives in one group',
    ],
    [{ services: { money: { services: ["a", "a"] } } }, 'services.money: names the service "a" twice'],
    [{ group: "payments" }, 'group: "payments" is no group of services; set services.payments, or leave it out'],
    [{ queue: { partitions: 0 } }, "queue.partitions: expected an integer from 1 to 256, got 0"],
    [{ queue: { outboxBytesMax: 5 } }, "queue.outboxBytesMax: expected an integer from 1048576"],
  ])("%j is refused", (content, message) => {
    expect(problems(content)).toContain(message);
  });

  it("take no secret in an address, and repeat none", () => {
    const said = problems({ services: { payments: { url: "http://user:hush@10.0.0.1:80" } } });
    expect(said).toContain(
      "services.payments.url: expected a base address, such as http://10.0.0.5:8081, got another text",
    );
    expect(said).not.toContain("hush");
  });

  it("are shown, compared and joined like all others", () => {
    const resolved = resolveTopology({
      file: { name: "f", content: { services: { payments: { services: ["payments", "mail"] } } } },
      flags: { rung: "5", workers: "3" },
    });
    expect(describeTopology(resolved).filter((line) => /^(services|queue)/.test(line))).toEqual([
      expect.stringMatching(/^queue\.prefix +rungs +\(default\)$/),
      expect.stringMatching(/^queue\.partitions +8 +\(default\)$/),
      expect.stringMatching(/^queue\.outboxBytesMax +10737418240 +\(default\)$/),
      expect.stringMatching(/^queue\.url +\[secret env:QUEUE_URL\] +\(preset rung 5\)$/),
      expect.stringMatching(/^services\.workers\.processes +3 +\(flag --workers\)$/),
      expect.stringMatching(/^services\.payments\.processes +1 +\(file f\)$/),
      expect.stringMatching(/^services\.payments\.services +payments, mail +\(file f\)$/),
    ]);
    expect(diffTopologies(presetFor(4), presetFor(5))).toEqual([
      { tier: "queue", path: "queue.url", from: undefined, to: env("QUEUE_URL") },
      { tier: "services", path: "services.workers.processes", from: undefined, to: 2 },
    ]);
  });
});

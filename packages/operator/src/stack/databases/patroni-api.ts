/** Questions and orders to Patroni's REST interface. */
import { UnavailableError } from "rungs";
import type { MemberReport } from "../component.ts";
import { askJson } from "../process/http-json.ts";
import { type PatroniMember, patroniUser } from "./patroni-config.ts";

const answerWithinMs = 1_500;
const switchWithinMs = 30_000;

/** All members as the first Patroni that answers sees them. Raises what the last one raised when none answers. */
export async function membersOf(members: readonly PatroniMember[], signal: AbortSignal): Promise<MemberReport[]> {
  let last: unknown;
  for (const { patroniPort } of members) {
    signal.throwIfAborted();
    try {
      const url = `http://127.0.0.1:${patroniPort}/cluster`;
      const both = AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]);
      const { status, content } = await askJson({ url, signal: both });
      if (status === 200) return reported(content, members);
      last = new Error(`${url} answered ${status}.`);
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

/** What was seen of a shard's servers, in words. */
export function statesOf(members: readonly MemberReport[]): string {
  return members.map(({ name, role, state }) => `${name} ${role} ${state}`).join(", ") || "no Patroni answered";
}

/** Whether the word is that of a server that can be asked. */
export function isUp({ state }: MemberReport): boolean {
  return state === "running" || state === "streaming";
}

/** Hands the leadership to a follower; resolves when that leads. Raises `UnavailableError` with Patroni's words when it does not. */
export async function switchOver(options: {
  readonly members: readonly PatroniMember[];
  readonly password: string;
  /** The follower that is to lead; default: Patroni chooses. */
  readonly candidate?: string;
  readonly signal: AbortSignal;
}): Promise<{ readonly from: string; readonly to: string }> {
  const { members, password, candidate } = options;
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(switchWithinMs)]);
  const from = (await membersOf(members, signal)).find(({ role }) => role === "leader")?.name;
  const asked = members.find(({ name }) => name === from);
  if (asked === undefined) throw refused("there is no leader at this moment");
  const { status, content } = await askJson({
    url: `http://127.0.0.1:${asked.patroniPort}/switchover`,
    method: "POST",
    body: { leader: from, ...(candidate === undefined ? {} : { candidate }) },
    login: { user: patroniUser, password },
    signal,
  });
  if (status !== 200) throw refused(String(content));
  for (;;) {
    const to = (await membersOf(members, signal)).find((member) => member.role === "leader" && isUp(member))?.name;
    if (to !== undefined && to !== from) return { from: asked.name, to };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/**
 * On how many followers a commit waits, where it waits for any; what etcd holds is changed until the next start. Raises
 * `UnavailableError` when no Patroni takes it.
 */
export async function setSynchronousFollowers(options: {
  readonly members: readonly PatroniMember[];
  readonly password: string;
  readonly count: number;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { members, password, count, signal } = options;
  for (const { patroniPort } of members) {
    const answer = await askJson({
      url: `http://127.0.0.1:${patroniPort}/config`,
      method: "PATCH",
      body: { synchronous_node_count: count },
      login: { user: patroniUser, password },
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]),
    }).catch(() => undefined);
    signal.throwIfAborted();
    if (answer?.status === 200) return;
  }
  throw refused("no Patroni takes a setting");
}

function refused(why: string): UnavailableError {
  return new UnavailableError("SERVER_START_FAILED", `The leadership was not handed over: ${why}.`, { canRetry: true });
}

interface PatroniReport {
  readonly name: string;
  readonly role: string;
  readonly state: string;
  readonly timeline?: number;
  readonly lag?: number | string;
}

/** In the order of the plan; a member that Patroni does not know yet, or any more, is "absent". */
function reported(content: unknown, members: readonly PatroniMember[]): MemberReport[] {
  const { members: known = [] } = content as { members?: PatroniReport[] };
  return members.map(({ name, postgresPort }) => {
    const found = known.find((member) => member.name === name);
    return {
      name,
      role: found?.role ?? "-",
      state: found?.state ?? "absent",
      timeline: found?.timeline ?? null,
      lagBytes: typeof found?.lag === "number" ? found.lag : null,
      port: postgresPort,
    };
  });
}

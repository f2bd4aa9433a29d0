/**
 * The text of `text/event-stream` (WHATWG HTML, 9.2 "Server-sent events"). Fields end with a line, so no value that holds a
 * line end may reach one: data is JSON, which escapes them, and names and ids are checked.
 */

/** Names of events; what services may send. */
const eventName = /^[a-z][a-z0-9_.-]{0,63}$/;

/** Names the live tier sends itself: `reset`, `end`, and what it tells its own processes. */
const reserved = /^(?:reset|end|rungs\..*)$/;

/** Whether a service may send an event of that name. */
export function isEventName(name: string): boolean {
  return eventName.test(name) && !reserved.test(name);
}

/** A position as a number; undefined for anything but 1 to 15 decimal digits. */
export function positionOf(id: string | undefined): number | undefined {
  return id !== undefined && /^\d{1,15}$/.test(id) ? Number(id) : undefined;
}

/** An event without its id. `json` has no line ends, as `JSON.stringify` makes it. */
export function eventText(event: string, json: string): string {
  return `event: ${event}\ndata: ${json}\n\n`;
}

/** Says where the stream stands; with an event behind it, that event's position. */
export function positionText(position: number): string {
  return `id: ${position}\n`;
}

/** How long the client waits before it connects again. */
export function retryText(retryMs: number): string {
  return `retry: ${Math.round(retryMs)}\n`;
}

/** Nothing, said aloud: keeps proxies from closing the connection, and finds out who is gone. */
export const heartbeatText = ":\n\n";

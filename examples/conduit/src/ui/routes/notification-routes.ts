/** The viewer's notifications. */
import type { FastifyInstance } from "fastify";
import { address } from "../address.ts";
import { notificationsPage } from "../views/notifications.ts";
import { goSignIn, isSignedIn, parameterOf, sendPage, type UiOptions, visitOf } from "../visit.ts";

export function notificationRoutes(pages: FastifyInstance, options: UiOptions): void {
  const { notifications } = options.conduit;

  pages.get("/notifications", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.notifications());
    const before = parameterOf(request, "before") ?? "";
    const isNewest = !/^[1-9]\d{0,8}$/.test(before);
    const page = await notifications.list(visit.viewer.id, isNewest ? {} : { before: Number(before) });
    const shown = page.notifications[0]?.id ?? 0;
    // Seen is read. The page still marks what was new; its bell counts what is left.
    const box = shown > page.readUpTo ? await notifications.markRead(visit.viewer.id, shown) : page;
    return sendPage(reply, visit, notificationsPage({ ...visit, notifications: box }, { page, isNewest }));
  });
}

/** Notifications in words. */
import type { Notification } from "../domain/model.ts";
import { money } from "../domain/money.ts";

/** One sentence, as plain text. */
export function notificationText({ kind, actor, details }: Omit<Notification, "text">): string {
  const who = actor?.username ?? "Somebody";
  const title = `“${details["title"] ?? "your article"}”`;
  switch (kind) {
    case "follow":
      return `${who} follows you.`;
    case "favorite":
      return `${who} likes ${title}.`;
    case "comment":
      return `${who} commented on ${title}.`;
    case "tip": {
      const message = details["message"] ?? "";
      const amount = money(Number(details["amountMinor"]), String(details["currency"]));
      return `${who} sent you a tip of ${amount}${message === "" ? "." : `: “${message}”`}`;
    }
    case "video":
      return details["state"] === "failed" ? "Your video could not be processed." : "Your video is ready.";
  }
}

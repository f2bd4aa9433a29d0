/** Where the provider's notices arrive: signature, then a row and a message, then the answer. Nothing else is done at once. */
import type { FastifyInstance } from "fastify";
import type { Clock, Logger } from "rungs";
import type { Database } from "rungs/database";
import { publication } from "rungs/queue";
import { ProblemError } from "../domain/problem.ts";
import type { Tables } from "../schema.ts";
import { tipNotified } from "./payment-events.ts";
import { NoticeRefusedError, type PaymentProvider } from "./payment-provider.ts";
import { addNotice } from "./tip-statements.ts";

/** Bytes of a notice; Stripe's are a few thousand. */
const noticeBytesMax = 256 * 1_024;
const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Registers `POST /payments/webhook`. It belongs to no user: its signature stands for the session and the CSRF rule. */
export function paymentWebhook(
  api: FastifyInstance,
  options: {
    readonly provider: PaymentProvider;
    readonly db: Database<Tables>;
    readonly clock: Clock;
    readonly log: Logger;
  },
): void {
  const { provider, db, clock, log } = options;
  api.register(async (scope) => {
    // The signature is over the bytes as they came.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", { parseAs: "buffer", bodyLimit: noticeBytesMax }, (_request, body, done) =>
      done(null, body),
    );
    scope.post("/payments/webhook", { config: { csrf: "off" }, bodyLimit: noticeBytesMax }, async (request, reply) => {
      const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
      let notice: ReturnType<PaymentProvider["verifyWebhook"]>;
      try {
        notice = provider.verifyWebhook(body, request.headers, clock.now());
      } catch (error) {
        if (!(error instanceof NoticeRefusedError)) throw error;
        log.warn({ reason: error.message, address: request.ip }, "a payment notice was refused");
        throw new ProblemError(400, { signature: ["is not valid"] });
      }
      // One that is not about a tip of ours is taken, so that the provider does not send it again.
      if (notice !== undefined && uuid.test(notice.tipId) && uuid.test(notice.payerId)) {
        const { noticeId, payerId, tipId, chargeId } = notice;
        await db.for(payerId).run(
          addNotice,
          { payerId, noticeId },
          {
            publish: [publication(tipNotified, { tipId, payerId, chargeId }, { key: tipId })],
          },
        );
      }
      return reply.code(204).send();
    });
  });
}

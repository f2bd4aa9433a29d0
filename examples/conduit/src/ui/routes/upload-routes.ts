/** The viewer's uploads: sent by a form, listed, deleted. */
import type { FastifyInstance } from "fastify";
import { describeError } from "rungs/web";
import { purposeOf, uploadReceiver } from "../../media/media-routes.ts";
import { address, safePath } from "../address.ts";
import { uploadsPage, uploadsPerPage } from "../views/uploads.ts";
import { goSignIn, goTo, isSignedIn, nextOf, parameterOf, sendPage, type UiOptions, visitOf } from "../visit.ts";

export function uploadRoutes(pages: FastifyInstance, options: UiOptions): void {
  const { uploads } = options.conduit;

  pages.get("/uploads", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.uploads());
    const before = parameterOf(request, "before");
    const list = await uploads.list(visit.viewer.id, { limit: uploadsPerPage, before });
    return sendPage(reply, visit, uploadsPage(visit, { uploads: list, isNewest: before === undefined }));
  });

  uploadReceiver(pages, "/uploads", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.uploads());
    const ownerId = visit.viewer.id;
    try {
      await options.receiveUpload(request, { ownerId, purpose: purposeOf(parameterOf(request, "purpose")) });
    } catch (error) {
      const answer = describeError(error);
      if (answer.isFault || answer.status === 401 || answer.status === 403) throw error;
      const list = await uploads.list(ownerId, { limit: uploadsPerPage });
      const page = uploadsPage(
        { ...visit, here: address.uploads() },
        { uploads: list, errors: answer.errors, isNewest: true },
      );
      return sendPage(reply, visit, page, answer.status);
    }
    return goTo(reply, safePath(parameterOf(request, "next")) ?? address.uploads());
  });

  pages.post<{ Params: { id: string } }>("/uploads/:id/delete", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.uploads());
    await uploads.remove(visit.viewer.id, request.params.id);
    return goTo(reply, nextOf(request, address.uploads()));
  });
}

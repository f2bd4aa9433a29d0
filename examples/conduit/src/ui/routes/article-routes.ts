/** Articles: reading, writing, favourites, comments. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Article } from "../../domain/model.ts";
import { ProblemError } from "../../domain/problem.ts";
import { shared } from "../../shared-answers.ts";
import { address } from "../address.ts";
import { articlePage } from "../views/article.ts";
import { type EditorValues, editorPage } from "../views/forms.ts";
import {
  afterReading,
  fieldOf,
  fieldsOf,
  goSignIn,
  goTo,
  isSignedIn,
  nextOf,
  parameterOf,
  type SignedInVisit,
  seenBy,
  sendPage,
  type UiOptions,
  type Visit,
  visitOf,
} from "../visit.ts";
import { isAnswerable } from "./account-routes.ts";

type Slug = { Params: { slug: string } };

export function articleRoutes(pages: FastifyInstance, options: UiOptions): void {
  const { articles, comments } = options.conduit;

  async function showArticle(
    visit: Visit,
    request: FastifyRequest<Slug>,
    reply: FastifyReply,
    refused?: { body: string; problem: ProblemError },
  ) {
    const { slug } = request.params;
    const viewerId = visit.viewer?.id;
    const [article, list] = await Promise.all([
      articles.bySlug(slug, viewerId, seenBy(reply)),
      comments.list(slug, viewerId, seenBy(reply)),
    ]);
    if (article.slug !== slug && refused === undefined) return goTo(reply, address.article(article.slug));
    const page = articlePage(afterReading(visit, reply), {
      article,
      comments: list,
      showsAllComments: parameterOf(request, "comments") === "all",
      refused: refused && { body: refused.body, errors: refused.problem.errors },
    });
    return sendPage(reply, visit, page, refused?.problem.statusCode);
  }

  pages.get<Slug>("/article/:slug", { config: shared }, async (request, reply) =>
    showArticle(await visitOf(request, options), request, reply),
  );

  for (const action of ["favorite", "unfavorite"] as const) {
    pages.post<Slug>(`/article/:slug/${action}`, async (request, reply) => {
      const { slug } = request.params;
      const visit = await visitOf(request, options);
      const next = nextOf(request, address.article(slug));
      if (!isSignedIn(visit)) return goSignIn(reply, next);
      await articles[action](visit.viewer.id, slug);
      return goTo(reply, next);
    });
  }

  pages.post<Slug>("/article/:slug/delete", async (request, reply) => {
    const { slug } = request.params;
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.article(slug));
    await articles.remove(visit.viewer.id, slug);
    return goTo(reply, address.home);
  });

  pages.post<Slug>("/article/:slug/comments", async (request, reply) => {
    const { slug } = request.params;
    const here = address.article(slug);
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, `${here}#comments`);
    const body = fieldOf(request, "body");
    try {
      await comments.add(visit.viewer.id, slug, { body });
    } catch (error) {
      if (!isAnswerable(error)) throw error;
      return showArticle({ ...visit, here }, request, reply, { body, problem: error });
    }
    return goTo(reply, `${here}#comments`);
  });

  pages.post<{ Params: { slug: string; id: string } }>("/article/:slug/comments/:id/delete", async (request, reply) => {
    const { slug, id } = request.params;
    const here = `${address.article(slug)}#comments`;
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, here);
    if (!/^\d{1,9}$/.test(id)) throw new ProblemError(404, { comment: ["not found"] });
    await comments.remove(visit.viewer.id, slug, Number(id));
    return goTo(reply, here);
  });
}

/** The editor: of a new article, and of the viewer's own. */
export function editorRoutes(pages: FastifyInstance, options: UiOptions): void {
  const { articles } = options.conduit;

  /** Saves, or shows what the form holds: as a preview, or with what was wrong. */
  async function saveOrShow(
    visit: SignedInVisit,
    request: FastifyRequest,
    reply: FastifyReply,
    slug: string | undefined,
    save: (values: EditorValues) => Promise<Article>,
  ) {
    const values = editorValues(request);
    if (fieldOf(request, "intent") === "preview") {
      return sendPage(reply, visit, editorPage(visit, { values, slug, isPreview: true }));
    }
    try {
      const saved = await save(values);
      return goTo(reply, address.article(saved.slug));
    } catch (error) {
      if (!isAnswerable(error)) throw error;
      return sendPage(reply, visit, editorPage(visit, { values, slug, errors: error.errors }), error.statusCode);
    }
  }

  pages.get("/editor", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, "/editor");
    return sendPage(reply, visit, editorPage(visit, { values: { title: "", description: "", body: "", tagList: [] } }));
  });

  pages.post("/editor", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, "/editor");
    return saveOrShow(visit, request, reply, undefined, (values) => articles.create(visit.viewer.id, values));
  });

  pages.get<Slug>("/editor/:slug", async (request, reply) => {
    const { slug } = request.params;
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.editor(slug));
    const article = await articles.bySlug(slug, visit.viewer.id);
    if (article.author.username !== visit.viewer.username)
      throw new ProblemError(403, { article: ["was written by somebody else"] });
    return sendPage(reply, visit, editorPage(visit, { values: article, slug: article.slug }));
  });

  pages.post<Slug>("/editor/:slug", async (request, reply) => {
    const { slug } = request.params;
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.editor(slug));
    return saveOrShow(visit, request, reply, slug, (values) => articles.update(visit.viewer.id, slug, values));
  });
}

/** Tags come as fields of their own (pills) and as one text with commas. */
function editorValues(request: FastifyRequest): EditorValues {
  const typed = fieldOf(request, "tags").split(",");
  const tags = [...fieldsOf(request, "tagList"), ...typed].map((tag) => tag.trim()).filter((tag) => tag !== "");
  return {
    title: fieldOf(request, "title"),
    description: fieldOf(request, "description"),
    body: fieldOf(request, "body"),
    tagList: [...new Set(tags)],
  };
}

/** Pages that list articles: the front page and the profiles. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { shared } from "../../shared-answers.ts";
import { address } from "../address.ts";
import { articlesPerPage, pageMax } from "../views/article-list.ts";
import { homePage } from "../views/home.ts";
import { profilePage } from "../views/profile.ts";
import {
  afterReading,
  goSignIn,
  goTo,
  isSignedIn,
  nextOf,
  parameterOf,
  seenBy,
  sendPage,
  type UiOptions,
  visitOf,
} from "../visit.ts";

type Username = { Params: { username: string } };

export function feedRoutes(pages: FastifyInstance, options: UiOptions): void {
  const { accounts, articles } = options.conduit;

  pages.get("/", { config: shared }, async (request, reply) => {
    const visit = await visitOf(request, options);
    const number = pageNumberOf(request);
    const slice = sliceOf(number);
    const tag = parameterOf(request, "tag");
    const wantsFollowing = parameterOf(request, "feed") === "following" || parameterOf(request, "tab") === "feed";
    if (wantsFollowing && !isSignedIn(visit)) return goSignIn(reply, address.following);
    const feed = tag !== undefined ? { tag } : wantsFollowing ? "following" : "global";
    const viewerId = visit.viewer?.id;
    const [page, tags] = await Promise.all([
      feed === "following" && viewerId !== undefined
        ? articles.feed(viewerId, slice, seenBy(reply))
        : articles.list({ ...slice, tag }, viewerId, seenBy(reply)),
      articles.tags(seenBy(reply)),
    ]);
    const content = { page, number, feed, tags: tags.slice(0, popularTagsMax) } as const;
    return sendPage(reply, visit, homePage(afterReading(visit, reply), content));
  });

  for (const shows of ["articles", "favorites"] as const) {
    pages.get<Username>(
      shows === "articles" ? "/profile/:username" : "/profile/:username/favorites",
      { config: shared },
      async (request, reply) => {
        const { username } = request.params;
        const visit = await visitOf(request, options);
        const number = pageNumberOf(request);
        const viewerId = visit.viewer?.id;
        const filter = shows === "articles" ? { author: username } : { favorited: username };
        const [profile, page] = await Promise.all([
          accounts.profile(username, viewerId, seenBy(reply)),
          articles.list({ ...filter, ...sliceOf(number) }, viewerId, seenBy(reply)),
        ]);
        return sendPage(reply, visit, profilePage(afterReading(visit, reply), { profile, page, number, shows }));
      },
    );
  }

  for (const action of ["follow", "unfollow"] as const) {
    pages.post<Username>(`/profile/:username/${action}`, async (request, reply) => {
      const { username } = request.params;
      const visit = await visitOf(request, options);
      const next = nextOf(request, address.profile(username));
      if (!isSignedIn(visit)) return goSignIn(reply, next);
      await accounts[action](visit.viewer.id, username);
      return goTo(reply, next);
    });
  }
}

/** Popular tags on the front page. */
const popularTagsMax = 20;

/** The page asked for, 1 for anything that is none. */
function pageNumberOf(request: FastifyRequest): number {
  const text = parameterOf(request, "page") ?? "1";
  return /^[1-9]\d{0,5}$/.test(text) ? Math.min(Number(text), pageMax) : 1;
}

function sliceOf(number: number): { readonly limit: number; readonly offset: number } {
  return { limit: articlesPerPage, offset: (number - 1) * articlesPerPage };
}

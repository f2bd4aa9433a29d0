/** A visitor without a browser: forms and cookies over HTTP, redirects left to be looked at. */
import { attributeOf, elementsOf } from "./inspect.ts";

export interface PageAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly html: string;
  /** Where a redirect leads. */
  readonly location: string | null;
}

export interface Visitor {
  get(path: string): Promise<PageAnswer>;
  /** Sends a form with the token of this session's pages. */
  post(path: string, fields?: FormFields, headers?: Readonly<Record<string, string>>): Promise<PageAnswer>;
  /** The cookies it holds, as they are sent; empty without any. */
  readonly cookie: string;
}

export type FormFields = Readonly<Record<string, string>> | readonly (readonly [string, string])[];

export function visitor(url: string): Visitor {
  const cookies = new Map<string, string>();
  const held = () => [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  const send = async (path: string, init: RequestInit): Promise<PageAnswer> => {
    const headers = { ...(cookies.size === 0 ? {} : { cookie: held() }), ...(init.headers as Record<string, string>) };
    const response = await fetch(url + path, { ...init, headers, redirect: "manual" });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (/max-age=0/i.test(line) || value === "") cookies.delete(name);
      else cookies.set(name, value);
    }
    return {
      status: response.status,
      headers: response.headers,
      html: await response.text(),
      location: response.headers.get("location"),
    };
  };
  const token = async () => {
    const { html } = await send("/login", {}).then((answer) => (answer.status === 303 ? send("/editor", {}) : answer));
    const field = elementsOf(html).find((element) => attributeOf(element, "name") === "_csrf");
    return (field && attributeOf(field, "value")) ?? "";
  };
  return {
    get: (path) => send(path, {}),
    async post(path, fields = {}, headers = {}) {
      const pairs = Array.isArray(fields) ? (fields as readonly (readonly [string, string])[]) : Object.entries(fields);
      const body = new URLSearchParams(pairs.map(([name, value]): [string, string] => [name, value]));
      if (!body.has("_csrf")) body.set("_csrf", await token());
      return send(path, { method: "POST", body, headers });
    },
    get cookie() {
      return held();
    },
  };
}

/** A visitor who signed up under that name. */
export function signUp(url: string, username: string): Promise<Visitor> {
  return entering(url, "/register", { username, email: `${username}@example.com`, password: "correct horse" });
}

/** A visitor who signed up under that name before, by whichever face. */
export function signedIn(url: string, username: string): Promise<Visitor> {
  return entering(url, "/login", { email: `${username}@example.com`, password: "correct horse" });
}

async function entering(url: string, path: string, fields: FormFields): Promise<Visitor> {
  const person = visitor(url);
  const answer = await person.post(path, fields);
  if (answer.status !== 303) throw new Error(`${path} answered ${answer.status}\n${answer.html}`);
  return person;
}

/** A small client of the RealWorld API for tests. */

/** An answer with its parsed body; `body` is undefined when there is none. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape.
  readonly body: any;
}

export interface Client {
  readonly token: string | undefined;
  get(path: string): Promise<Answer>;
  post(path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<Answer>;
  put(path: string, body?: unknown): Promise<Answer>;
  delete(path: string): Promise<Answer>;
}

/** A client of the API at `url`, with or without a token. */
export function client(url: string, token?: string): Client {
  const send = async (
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Answer> => {
    const response = await fetch(`${url}/api${path}`, {
      method,
      headers: {
        ...headers,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(token === undefined ? {} : { authorization: `Token ${token}` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text === "" ? undefined : JSON.parse(text) };
  };
  return {
    token,
    get: (path) => send("GET", path),
    post: (path, body, headers) => send("POST", path, body, headers),
    put: (path, body) => send("PUT", path, body),
    delete: (path) => send("DELETE", path),
  };
}

/** Registers a user and gives a client signed in as them. */
export async function registered(url: string, username: string): Promise<Client> {
  const answer = await client(url).post("/users", {
    user: { username, email: `${username}@example.com`, password: "correct horse" },
  });
  if (answer.status !== 201)
    throw new Error(`registration of ${username} answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  return client(url, answer.body.user.token);
}

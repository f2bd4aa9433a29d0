/** What an app says about itself in the field "rungs" of its package.json. */
import { access, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { ConfigError } from "rungs";
import { z } from "zod";

const path = z.string().regex(/^\/[\w./-]{0,200}$/, "expected a path such as /api/uploads");

const field = z.strictObject({
  app: z.string().min(1).optional(),
  companions: z
    .array(z.strictObject({ name: z.string().regex(/^[a-z][a-z0-9-]{0,30}$/), program: z.string().min(1) }))
    .max(16)
    .default([]),
  balancer: z
    .strictObject({
      uploads: z
        .array(
          z.strictObject({
            path,
            bodyLimitMegabytes: z.int().min(1).max(1_000_000),
            timeoutMs: z.int().min(1_000).max(86_400_000).default(300_000),
          }),
        )
        .max(32)
        .default([]),
      streams: z.array(path).max(32).default([]),
      hidden: z.array(path).max(32).default([]),
    })
    .prefault({}),
  cdn: z.strictObject({ files: z.array(path).max(32).default([]) }).prefault({}),
});

/** The app to run. */
export interface AppPackage {
  readonly name: string;
  /** Folder of its package.json. */
  readonly folder: string;
  /** File whose default export is what `defineApp` gave. */
  readonly app: string;
  readonly companions: readonly { readonly name: string; readonly program: string }[];
  readonly balancer: z.infer<typeof field>["balancer"];
  /** `files`: path prefixes below which everything is the same for everybody, beside static files. */
  readonly cdn: z.infer<typeof field>["cdn"];
}

const appFilesDefault = ["src/app.ts", "app.ts", "src/app.js", "app.js"];

/**
 * Reads the package.json of this folder or the nearest one above. Raises `CONFIG_INVALID` when there is none, when the field is
 * wrong, or when a file it names is missing.
 */
export async function readAppPackage(from: string): Promise<AppPackage> {
  const folder = await packageFolder(resolve(from));
  const file = join(folder, "package.json");
  const text = await readFile(file, "utf8");
  let content: { name?: unknown; rungs?: unknown };
  try {
    content = JSON.parse(text) as typeof content;
  } catch (error) {
    throw new ConfigError("CONFIG_INVALID", `${file} is not valid JSON.`, { cause: error });
  }
  const parsed = field.safeParse(content.rungs ?? {});
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new ConfigError("CONFIG_INVALID", `${file}: rungs.${issue?.path.join(".")}: ${issue?.message}.`);
  }
  const { app, companions, balancer, cdn } = parsed.data;
  return {
    name: typeof content.name === "string" ? content.name : folder,
    folder,
    app: await existing(folder, app === undefined ? appFilesDefault : [app], file),
    companions: await Promise.all(
      companions.map(async ({ name, program }) => ({ name, program: await existing(folder, [program], file) })),
    ),
    balancer,
    cdn,
  };
}

async function packageFolder(from: string): Promise<string> {
  for (let at = from; ; at = dirname(at)) {
    if (await isThere(join(at, "package.json"))) return at;
    if (at === dirname(at)) {
      throw new ConfigError(
        "CONFIG_INVALID",
        `There is no package.json in ${from} or above. Run this in the folder of your app.`,
      );
    }
  }
}

async function existing(folder: string, names: readonly string[], file: string): Promise<string> {
  for (const name of names) if (await isThere(join(folder, name))) return join(folder, name);
  throw new ConfigError(
    "CONFIG_INVALID",
    `No app was found: ${names.map((name) => join(folder, name)).join(" or ")}. Run this in the folder of your app, or name the file in ${file}: "rungs": { "app": "src/app.ts" }.`,
  );
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

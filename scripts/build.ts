/**
 * Builds the published packages: JavaScript, types and source maps in the `dist` of each, with a package.json of its own
 * whose exports name them. `--check` also runs publint on each, imports every entry point of the packed tarballs, and
 * runs the packed bin.
 */
import { execFileSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Folders of the published packages; each may import those before it. */
const folders = ["packages/runtime", "packages/operator"];

interface PackageFile {
  readonly name: string;
  readonly exports: Readonly<Record<string, string>>;
  readonly bin?: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

/** A package that has been built. */
interface Built {
  readonly source: PackageFile;
  readonly dist: string;
}

async function build(folder: string, before: readonly Built[]): Promise<Built> {
  const packageFolder = join(root, folder);
  const dist = join(packageFolder, "dist");
  await rm(dist, { recursive: true, force: true });
  const source = JSON.parse(await readFile(join(packageFolder, "package.json"), "utf8")) as PackageFile;
  await compile(dist, before);
  const published = {
    ...source,
    private: undefined,
    devDependencies: undefined,
    engines: { node: ">=24" },
    files: ["**/*.js", "**/*.d.ts", "**/*.map", ...(source.bin === undefined ? [] : ["bin/"])],
    sideEffects: false,
    exports: Object.fromEntries(
      Object.entries(source.exports).map(([name, path]) => [name, { types: typesOf(path), default: scriptOf(path) }]),
    ),
  };
  await writeFile(join(dist, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
  await cp(join(root, "LICENSE"), join(dist, "LICENSE"));
  if (source.bin !== undefined) await cp(join(packageFolder, "bin"), join(dist, "bin"), { recursive: true });
  const readme = await readFile(join(packageFolder, "README.md"), "utf8").catch(() =>
    readFile(join(root, "README.md"), "utf8"),
  );
  await writeFile(join(dist, "README.md"), readme);
  return { source, dist };
}

/** A package of this checkout that another one imports is taken as built: its sources are none of the other's. */
async function compile(dist: string, before: readonly Built[]): Promise<void> {
  await mkdir(dist);
  const settings = join(dist, "tsconfig.json");
  const paths = before.flatMap(({ source, dist: other }) =>
    Object.entries(source.exports).map(([name, path]) => [
      name.replace(/^\./, source.name),
      [join(other, typesOf(path))],
    ]),
  );
  await writeFile(
    settings,
    JSON.stringify({
      extends: "../tsconfig.build.json",
      compilerOptions: { rootDir: "../src", outDir: ".", paths: Object.fromEntries(paths) },
      include: ["../src"],
    }),
  );
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [compiler, "-p", settings], { stdio: "inherit" });
  await rm(settings);
}

const typesOf = (path: string) => path.replace("./src/", "./").replace(/\.ts$/, ".d.ts");
const scriptOf = (path: string) => path.replace("./src/", "./").replace(/\.ts$/, ".js");

async function check(packages: readonly Built[]): Promise<void> {
  for (const { source, dist } of packages) {
    const { messages } = await publint({ pkgDir: dist, strict: true, pack: false });
    const manifest = JSON.parse(await readFile(join(dist, "package.json"), "utf8"));
    for (const message of messages)
      process.stdout.write(`publint: ${source.name}: ${formatMessage(message, manifest)}\n`);
    if (messages.length > 0) throw new Error(`publint found ${messages.length} problem(s) in ${source.name}`);
  }
  await usePacked(packages);
}

/** Installs the tarballs as npm would, beside the checkout's own dependencies, and uses each of them in plain Node. */
async function usePacked(packages: readonly Built[]): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "rungs-pack-"));
  const run = (...args: string[]) =>
    execFileSync(process.execPath, args, {
      stdio: ["ignore", "pipe", "inherit"],
      cwd: folder,
      env: { ...process.env, NODE_OPTIONS: "" },
      encoding: "utf8",
    });
  try {
    const modules = join(folder, "node_modules");
    for (const built of packages) await unpack(built, folder);
    const own = packages.map(({ source }) => source.name);
    // A parent folder's packages are found by Node; the checkout's stand for those npm would install.
    for (const name of new Set(packages.flatMap(({ source }) => Object.keys(source.dependencies)))) {
      if (own.includes(name)) continue;
      await mkdir(dirname(join(modules, name)), { recursive: true });
      await symlink(join(root, "node_modules", name), join(modules, name));
    }
    const names = packages.flatMap(({ source }) =>
      Object.keys(source.exports).map((name) => name.replace(/^\./, source.name)),
    );
    const program = join(folder, "import-all.mjs");
    await writeFile(program, `${names.map((name) => `await import(${JSON.stringify(name)});`).join("\n")}\n`);
    run(program);
    process.stdout.write(`${names.length} entry points of the packed packages can be imported\n`);
    for (const { source } of packages) {
      for (const [name, path] of Object.entries(source.bin ?? {})) {
        const help = run(join(modules, source.name, path), "--help");
        if (!help.includes(`USAGE ${name}`)) throw new Error(`The packed ${name} --help printed:\n${help}`);
        process.stdout.write(`the packed bin ${name} runs\n`);
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function unpack({ source, dist }: Built, folder: string): Promise<void> {
  const packed = execFileSync("npm", ["pack", dist, "--silent", "--pack-destination", folder], {
    encoding: "utf8",
  }).trim();
  const target = join(folder, "node_modules", source.name);
  await mkdir(target, { recursive: true });
  execFileSync("tar", ["-xzf", join(folder, packed), "-C", target, "--strip-components=1"]);
}

if (pathToFileURL(process.argv[1] ?? "").href === import.meta.url) {
  const packages: Built[] = [];
  for (const folder of folders) packages.push(await build(folder, packages));
  if (process.argv.includes("--check")) await check(packages);
}

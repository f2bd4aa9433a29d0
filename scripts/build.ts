/**
 * Builds the published package: JavaScript, types and source maps in `packages/runtime/dist`, with a package.json of its
 * own whose exports name them. `--check` also runs publint on it and imports every entry point of the packed tarball.
 */
import { execFileSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

const root = fileURLToPath(new URL("..", import.meta.url));
const packageFolder = join(root, "packages", "runtime");
const dist = join(packageFolder, "dist");

interface PackageFile {
  readonly exports: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

async function build(): Promise<PackageFile> {
  await rm(dist, { recursive: true, force: true });
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [compiler, "-p", join(packageFolder, "tsconfig.build.json")], { stdio: "inherit" });
  const source = JSON.parse(await readFile(join(packageFolder, "package.json"), "utf8")) as PackageFile;
  const published = {
    ...source,
    private: undefined,
    devDependencies: undefined,
    engines: { node: ">=24" },
    files: ["**/*.js", "**/*.d.ts", "**/*.map"],
    sideEffects: false,
    exports: Object.fromEntries(
      Object.entries(source.exports).map(([name, path]) => {
        const base = path.replace("./src/", "./").replace(/\.ts$/, "");
        return [name, { types: `${base}.d.ts`, default: `${base}.js` }];
      }),
    ),
  };
  await writeFile(join(dist, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
  await cp(join(root, "LICENSE"), join(dist, "LICENSE"));
  const readme = await readFile(join(packageFolder, "README.md"), "utf8").catch(() =>
    readFile(join(root, "README.md"), "utf8"),
  );
  await writeFile(join(dist, "README.md"), readme);
  return source;
}

async function check(source: PackageFile): Promise<void> {
  const { messages } = await publint({ pkgDir: dist, strict: true, pack: false });
  const manifest = JSON.parse(await readFile(join(dist, "package.json"), "utf8"));
  for (const message of messages) process.stdout.write(`publint: ${formatMessage(message, manifest)}\n`);
  if (messages.length > 0) throw new Error(`publint found ${messages.length} problem(s)`);
  await importPacked(source);
}

/** Installs the tarball as npm would, beside the checkout's own dependencies, and imports each entry point in plain Node. */
async function importPacked(source: PackageFile): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "rungs-pack-"));
  try {
    const packed = execFileSync("npm", ["pack", dist, "--silent", "--pack-destination", folder], {
      encoding: "utf8",
    }).trim();
    execFileSync("tar", ["-xzf", join(folder, packed), "-C", folder]);
    const modules = join(folder, "node_modules");
    await mkdir(modules);
    await cp(join(folder, "package"), join(modules, "rungs"), { recursive: true });
    // A parent folder's packages are found by Node; the checkout's stand for those npm would install.
    for (const name of Object.keys(source["dependencies"] as object)) {
      const target = join(modules, name);
      await mkdir(join(target, ".."), { recursive: true });
      await symlink(join(root, "node_modules", name), target);
    }
    const names = Object.keys(source.exports).map((name) => name.replace(/^\./, "rungs"));
    const program = join(folder, "import-all.mjs");
    await writeFile(program, `${names.map((name) => `await import(${JSON.stringify(name)});`).join("\n")}\n`);
    execFileSync(process.execPath, [program], {
      stdio: "inherit",
      cwd: folder,
      env: { ...process.env, NODE_OPTIONS: "" },
    });
    process.stdout.write(`${names.length} entry points of the packed package can be imported\n`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

if (pathToFileURL(process.argv[1] ?? "").href === import.meta.url) {
  const source = await build();
  if (process.argv.includes("--check")) await check(source);
}

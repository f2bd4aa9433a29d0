/** Debian's Chromium, driven by playwright-core. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { onTestFailed } from "vitest";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const folders = [
  ...(process.env["PATH"] ?? "").split(delimiter),
  "/usr/bin",
  "/usr/local/bin",
  "/snap/bin",
  "/Applications/Google Chrome.app/Contents/MacOS",
];

/** The browser's program: of `CHROMIUM_PATH`, of the path, or of the usual places; undefined without one. */
export function findChromium(): string | undefined {
  const candidates = [
    process.env["CHROMIUM_PATH"],
    ...folders.flatMap((folder) => [...names, "Google Chrome"].map((name) => join(folder, name))),
  ];
  return candidates.find((file) => file !== undefined && file !== "" && isProgram(file));
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export function launch(executablePath: string): Promise<Browser> {
  // Chromium's sandbox refuses to run as root.
  return chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
}

/** A person at a browser of their own. `troubles` collects what a page must never do, `answers` what came of its requests. */
export interface Person {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly troubles: string[];
  readonly answers: readonly string[];
}

/** Opens a browser window with an empty cookie jar. Requests to other hosts go nowhere. */
export async function person(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Person> {
  const context = await browser.newContext({ baseURL: url, ...options });
  context.setDefaultTimeout(10_000);
  await context.route(
    (address) => address.origin !== url && address.protocol !== "data:",
    (route) => route.abort(),
  );
  const page = await context.newPage();
  const troubles: string[] = [];
  const answers: string[] = [];
  page.on("response", (response) =>
    answers.push(`${response.status()} ${response.request().method()} ${response.url()}`),
  );
  page.on("requestfailed", (request) =>
    answers.push(`${request.failure()?.errorText} ${request.method()} ${request.url()}`),
  );
  page.on("pageerror", (error) => troubles.push(`script error: ${error.message}`));
  page.on("console", (message) => {
    // Chromium logs each answer of 4xx and each image that could not be fetched: both are part of the journeys.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource"))
      troubles.push(message.text());
  });
  return { page, context, troubles, answers };
}

/** If the test that runs fails, says what the server answered: what was waited for in vain says little without. */
export function tellOnFailure(...people: readonly Person[]): void {
  onTestFailed(() => {
    for (const { answers, troubles } of people) console.info([...answers.slice(-20), ...troubles].join("\n"));
  });
}

/**
 * Checks of what people send. Each schema gives the parsed value or one {@link ProblemError} that names every bad field
 * in RealWorld's words ("can't be blank", "is too long (maximum is 100 characters)").
 */
import { z } from "zod";
import { ProblemError } from "./problem.ts";

/** Text PostgreSQL can store: no NUL, no lone surrogates. */
const storable = (text: string) => !text.includes("\u0000") && text.isWellFormed();
/** Line breaks and other control characters have no place in one-line fields. */
const oneLine = (text: string) => !/\p{Cc}/u.test(text);

function requiredLine(max: number) {
  return z
    .string()
    .transform((text) => text.trim())
    .pipe(
      z
        .string()
        .min(1, "can't be blank")
        .max(max, `is too long (maximum is ${max} characters)`)
        .refine((text) => storable(text) && oneLine(text), "contains characters that are not allowed"),
    );
}

function requiredText(max: number) {
  return z
    .string()
    .max(max, `is too long (maximum is ${max} characters)`)
    .refine((text) => text.trim() !== "", "can't be blank")
    .refine(storable, "contains characters that are not allowed");
}

function optionalText(max: number) {
  return z
    .string()
    .max(max, `is too long (maximum is ${max} characters)`)
    .refine(storable, "contains characters that are not allowed")
    .nullable()
    .transform((text) => text ?? "");
}

const username = requiredLine(50).refine(
  (name) => !/[/\\?#%]/.test(name) && name !== "." && name !== "..",
  "may not contain / \\ ? # %",
);
const email = requiredLine(254).refine((address) => /^[^\s@]+@[^\s@]+$/.test(address), "is invalid");
// 6 is the minimum of RealWorld's reference implementation (Devise); 128 bounds the work of hashing.
const password = z
  .string()
  .min(1, "can't be blank")
  .min(6, "is too short (minimum is 6 characters)")
  .max(128, "is too long (maximum is 128 characters)");
const image = optionalText(2_000)
  .transform((address) => address.trim())
  .refine(
    (address) => address === "" || isWebAddress(address) || isOwnMedia(address),
    "must be an http or https address",
  );

const tags = z
  .array(requiredLine(50), "must be a list of texts")
  .max(20, "has too many entries (maximum is 20)")
  .transform((list) => [...new Set(list)]);

const pageLimit = z
  .int()
  .min(1, "must be an integer of at least 1")
  .transform((limit) => Math.min(limit, 100))
  .default(20);
const numberMax = 2 ** 31 - 1;
const number = z
  .int()
  .min(0, "must be an integer of at least 0")
  .transform((value) => Math.min(value, numberMax));

/** Currencies in which tips are given; ISO 4217. */
export const currencies = ["EUR", "USD", "GBP", "JPY"] as const;
const amountText = "must be an integer from 1 to 100000";

const title = requiredLine(200);
const description = requiredLine(500);
const body = requiredText(65_536);

/** One schema an input; see the domain's input types for what the fields mean. */
export const inputs = {
  newAccount: z.object({ username, email, password }),
  credentials: z.object({
    email: z.string().min(1, "can't be blank").max(254, "is too long (maximum is 254 characters)"),
    password: z.string().min(1, "can't be blank").max(128, "is too long (maximum is 128 characters)"),
  }),
  accountChange: z
    .object({ username, email, password, bio: optionalText(2_000), image })
    .partial()
    .refine((change) => Object.values(change).some((value) => value !== undefined), {
      path: ["body"],
      message: "must change at least one of username, email, password, bio, image",
    }),
  newArticle: z.object({ title, description, body, tagList: tags.nullish().transform((list) => list ?? []) }),
  articleChange: z.object({ title, description, body, tagList: tags }).partial(),
  newComment: z.object({ body: requiredText(16_384) }),
  notificationPage: z.object({ limit: pageLimit, before: number.default(numberMax) }),
  readMark: z.object({ upTo: number }),
  newTip: z.object({
    amount: z.int(amountText).min(1, amountText).max(100_000, amountText),
    currency: z.enum(currencies, `must be one of ${currencies.join(", ")}`),
    message: optionalText(280)
      .nullish()
      .transform((text) => (text ?? "").trim()),
  }),
  uploadPage: z.object({ limit: pageLimit, before: z.uuid("is invalid").optional() }),
  tipPage: z.object({ limit: pageLimit, before: z.uuid("is invalid").optional() }),
  page: z.object({
    limit: pageLimit,
    offset: z
      .int()
      .min(0, "must be an integer from 0 to 100000")
      .max(100_000, "must be an integer from 0 to 100000")
      .default(0),
  }),
};

/** Parses `value`; raises a 422 {@link ProblemError} that names every bad field. */
export function parse<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  throw new ProblemError(422, problemsOf(result.error));
}

function problemsOf(error: z.ZodError): Record<string, string[]> {
  const problems: Record<string, string[]> = {};
  for (const issue of error.issues) {
    const field = issue.path.length === 0 ? "body" : String(issue.path[0]);
    problems[field] = [...new Set([...(problems[field] ?? []), messageOf(issue)])];
  }
  return problems;
}

function messageOf(issue: z.core.$ZodIssue): string {
  if (issue.code !== "invalid_type") return issue.message;
  if (issue.input === undefined || issue.input === null) return "can't be blank";
  // zod's own wording starts so; anything else was written here for the field.
  return issue.message.startsWith("Invalid input") ? `must be of type ${issue.expected}` : issue.message;
}

function isWebAddress(address: string): boolean {
  if (!URL.canParse(address)) return false;
  const { protocol } = new URL(address);
  return protocol === "http:" || protocol === "https:";
}

/** Whether an address is that of a picture or video uploaded here: a path of this site. */
export function isOwnMedia(address: string): boolean {
  return /^\/media\/[0-9a-f-]{36}\/[0-9a-f-]{36}\/[a-z0-9-]{1,64}\.(?:webp|avif|mp4)$/.test(address);
}

/** A name as compared for uniqueness: compatibility forms and case do not make a second one. */
export function comparable(name: string): string {
  return name.normalize("NFKC").toLowerCase();
}

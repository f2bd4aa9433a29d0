/**
 * HTML that is escaped by construction: `html` escapes every interpolated value unless it is markup that `html` (or
 * {@link trusted}) made. Where a value stands decides what it may be; a template that puts one where no escaping helps
 * (a tag or attribute name, an unquoted attribute, a script, a style, a comment) is refused when it is first used.
 */

/** Markup (or attributes) that need no more escaping. Made by {@link html}, {@link attributes} and {@link trusted} only. */
export class SafeHtml {
  readonly text: string;
  readonly kind: "markup" | "attributes";

  constructor(text: string, kind: "markup" | "attributes" = "markup") {
    this.text = text;
    this.kind = kind;
  }

  toString(): string {
    return this.text;
  }
}

/** What may stand in a template: text is escaped, lists are joined, `undefined`, `null` and `false` leave nothing. */
export type HtmlValue = SafeHtml | string | number | false | null | undefined | readonly HtmlValue[];

/** Where a value stands: in text, in a quoted attribute, at the start of an address attribute, or among attributes. */
type Place = "text" | "quoted" | "address" | "attributes";

const placesOf = new WeakMap<TemplateStringsArray, readonly Place[]>();

/** The template tag; see the file's header. Raises `TypeError` for a template or value that cannot be made safe. */
export function html(strings: TemplateStringsArray, ...values: readonly HtmlValue[]): SafeHtml {
  let places = placesOf.get(strings);
  if (places === undefined) {
    places = findPlaces(strings);
    placesOf.set(strings, places);
  }
  let text = strings[0] as string;
  for (let index = 0; index < values.length; index++) {
    text += render(values[index], places[index] as Place) + strings[index + 1];
  }
  return new SafeHtml(text);
}

/** Attributes by condition: `true` gives the bare name, `false` and `undefined` leave it out, texts are escaped. */
export function attributes(list: Readonly<Record<string, string | number | boolean | undefined>>): SafeHtml {
  let text = "";
  for (const [name, value] of Object.entries(list)) {
    if (!/^[a-z][a-z-]*$/.test(name) || name.startsWith("on") || addressAttribute.test(name)) {
      throw new TypeError(`attributes() does not take "${name}".`);
    }
    if (value === true) text += ` ${name}`;
    else if (value !== false && value !== undefined) text += ` ${name}="${escapeHtml(String(value))}"`;
  }
  return new SafeHtml(text, "attributes");
}

/** Declares markup made elsewhere (the Markdown renderer) to be safe. The caller answers for it. */
export function trusted(markup: string): SafeHtml {
  return new SafeHtml(markup);
}

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text as it may stand in HTML text and in quoted attributes. */
export function escapeHtml(text: string): string {
  return /[&<>"']/.test(text) ? text.replace(/[&<>"']/g, (character) => escapes[character] as string) : text;
}

function render(value: HtmlValue, place: Place): string {
  if (value === undefined || value === null || value === false) return "";
  if (value instanceof SafeHtml) {
    if (
      value.kind !== (place === "attributes" ? "attributes" : "markup") ||
      place === "quoted" ||
      place === "address"
    ) {
      throw new TypeError(`An html template cannot take ${value.kind} in the place of ${place}.`);
    }
    return value.text;
  }
  if (place === "attributes") throw new TypeError("Among attributes, an html template takes attributes() only.");
  if (Array.isArray(value)) return value.map((item: HtmlValue) => render(item, place)).join("");
  const text = String(value);
  return escapeHtml(place === "address" && !isSafeAddress(text) ? "about:invalid" : text);
}

const addressAttribute = /^(?:href|src|action|formaction|data|poster|srcset|xlink:href)$/;

/** Addresses that run nothing: of this site, of the web, mail, and drawn images. */
function isSafeAddress(address: string): boolean {
  return /^(?:[/#?]|https?:\/\/|mailto:|data:image\/svg\+xml,)/i.test(address);
}

/** Walks the fixed parts of a template as an HTML tokeniser would, and says where each value stands. */
function findPlaces(strings: TemplateStringsArray): readonly Place[] {
  let state: "text" | "tag" | '"' | "'" = "text";
  let tag = "";
  return strings.slice(0, -1).map((part) => {
    for (const character of part) {
      if (state === "text") {
        if (character !== "<") continue;
        state = "tag";
        tag = "";
      } else if (state === "tag" && character === ">") {
        state = "text";
      } else {
        if (state === "tag") {
          tag += character;
          if (character === '"' || character === "'") state = character;
        } else if (character === state) {
          tag += character;
          state = "tag";
        }
      }
    }
    if (state === "text") return placeInText(tag);
    return state === "tag" ? placeInTag(tag) : placeInQuotes(tag, part.endsWith(state));
  });
}

function placeInText(lastTag: string): Place {
  if (/^(?:script|style|!--)/i.test(lastTag)) throw new TypeError(`An html template cannot fill <${lastTag}>.`);
  return "text";
}

function placeInTag(tag: string): Place {
  if (/^!--/.test(tag)) throw new TypeError("An html template cannot fill a comment.");
  if (/^\/?$|=\s*$/.test(tag))
    throw new TypeError(`An html template needs a fixed tag name and quotes around values: <${tag}.`);
  return "attributes";
}

function placeInQuotes(tag: string, isFirst: boolean): Place {
  const name = /([^\s"'=<>]+)\s*=\s*["']$/.exec(tag)?.[1]?.toLowerCase() ?? "";
  if (name.startsWith("on") || name === "style") throw new TypeError(`An html template cannot fill ${name}="".`);
  return addressAttribute.test(name) && isFirst ? "address" : "quoted";
}

/** Amounts of money for people, and back. Amounts in code are whole minor units (cents; yen have none). */

/** An amount with its currency's sign, e.g. "€5.00". */
export function money(amountMinor: number, currency: string): string {
  const format = formatOf(currency);
  return format.format(amountMinor / 10 ** digitsOf(format));
}

/**
 * Minor units of an amount as people type it, "5", "5.5", "5,50" or "€ 5.50"; undefined when it is none, or finer than the
 * currency's smallest coin.
 */
export function minorUnitsOf(text: string, currency: string): number | undefined {
  const digits = digitsOf(formatOf(currency));
  const [, whole = "", part = ""] = /^\p{Sc}?\s*(\d{1,9})(?:[.,](\d{1,9}))?\s*\p{Sc}?$/u.exec(text.trim()) ?? [];
  if (whole === "" || part.length > digits) return undefined;
  // As text and not by a product, which would leave 8.2 * 100 at 819.9999999999999.
  return Number(whole + part.padEnd(digits, "0"));
}

const formats = new Map<string, Intl.NumberFormat>();

/** One a currency; Conduit has a handful. */
function formatOf(currency: string): Intl.NumberFormat {
  const known = formats.get(currency);
  if (known !== undefined) return known;
  const made = new Intl.NumberFormat("en-GB", { style: "currency", currency });
  formats.set(currency, made);
  return made;
}

function digitsOf(format: Intl.NumberFormat): number {
  return format.resolvedOptions().maximumFractionDigits ?? 2;
}

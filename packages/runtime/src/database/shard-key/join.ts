/** Which sides of a join its ON speaks for. */
import type { Scope } from "./scope.ts";
import type { SyntaxNode } from "./syntax-node.ts";

/** A join and the aliases it brings into the block. */
export interface Joined {
  readonly join: SyntaxNode;
  readonly aliases: readonly string[];
}

/** Whether the join keeps rows that its ON does not match. */
export function isOuter(join: SyntaxNode): boolean {
  return /Left|Right|Full|OuterApply/.test(String(join["joinType"]));
}

/** Whether the joined side may be left out. */
export function isLeft(join: SyntaxNode): boolean {
  return /Left/.test(String(join["joinType"]));
}

/** Sources whose rows an outer join may leave out, so that its ON may tie them. */
export function leftOut(outer: readonly Joined[], scope: Scope): Set<string> {
  const aliases = [...scope.sources.keys()];
  return new Set(
    outer.flatMap(({ join, aliases: joined }) => {
      if (isLeft(join)) return joined;
      return join["joinType"] === "RightJoin" ? aliases.slice(0, aliases.indexOf(joined[0] ?? "")) : [];
    }),
  );
}

/** Which tables exist and where their rows live: declared by services, read by the shard-key guard. */
import { ConfigError } from "../kernel/errors.ts";

/** Where a table's rows live. */
export type TableDeclaration =
  /** Split over the shards by this column, which leads the primary key. */
  | { readonly shardBy: string }
  /** Small and global: in the home database only. */
  | { readonly home: true }
  /** Small and global, written in the home database and copied to every shard, where queries may join it. */
  | { readonly reference: true };

/** A table of a service whose database this is not: no query here may name it. */
export interface TableElsewhere {
  /** The service. */
  readonly elsewhere: string;
}

/** All declared tables by name. */
export type TableRegistry = ReadonlyMap<string, TableDeclaration | TableElsewhere>;

interface Declaring {
  readonly name: string;
  readonly tables: Readonly<Record<string, TableDeclaration>>;
}

/**
 * Joins the declarations of several services; `elsewhere`: of those whose tables are in other databases. Raises `CONFIG_INVALID` when
 * two of them declare one table.
 */
export function tableRegistry(services: readonly Declaring[], elsewhere: readonly Declaring[] = []): TableRegistry {
  const registry = new Map<string, TableDeclaration | TableElsewhere>();
  const owner = new Map<string, string>();
  for (const service of [...services, ...elsewhere]) {
    for (const [table, declaration] of Object.entries(service.tables)) {
      const other = owner.get(table);
      if (other !== undefined) {
        throw new ConfigError(
          "CONFIG_INVALID",
          `Table "${table}" is declared by service "${other}" and by service "${service.name}". Let one own it.`,
        );
      }
      owner.set(table, service.name);
      registry.set(table, elsewhere.includes(service) ? { elsewhere: service.name } : declaration);
    }
  }
  return registry;
}

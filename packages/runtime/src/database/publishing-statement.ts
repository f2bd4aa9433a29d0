/**
 * A write and the messages that tell of it, as one statement:
 *
 *   with ..., rungs_effect as (the write returning ...), rungs_message as (insert into the job table ...
 *     where exists (select from rungs_effect)) select * from rungs_effect
 *
 * A transaction would be four round trips. The condition makes the messages wait for the first row of the write, so that
 * they are numbered after its row lock, as at the end of a transaction.
 */
import {
  CommonTableExpressionNameNode,
  CommonTableExpressionNode,
  type CompiledQuery,
  type OperationNode,
  RawNode,
  type RootOperationNode,
  SelectionNode,
  SelectQueryNode,
  TableNode,
  ValueNode,
  WithNode,
} from "kysely";
import type { MessageWriter } from "./database.ts";
import { compiler, type Statement, type StatementParameters, slotsOf } from "./statement.ts";

/** A statement to run outside a transaction. */
export interface PublishingStatement<P extends StatementParameters> {
  /** Undefined where the name would be too long for PostgreSQL. */
  readonly name: string | undefined;
  readonly sql: string;
  bind(parameters: P, messageValues: readonly unknown[]): unknown[];
}

/** Stands for the message writer's parameter of that index. */
class MessagePlaceholder {
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
}

/**
 * Joins a statement and the writing of messages. With `column`, they are written only if the first row has a value there.
 * Undefined for what gives no rows, or is no query that can stand in a WITH clause.
 */
export function publishingStatement<P extends StatementParameters, R>(
  statement: Statement<P, R>,
  messages: MessageWriter,
  column?: string,
): PublishingStatement<P> | undefined {
  const { query } = statement.compiled;
  if (!isEmbeddable(query)) return undefined;
  const { with: own, ...effect } = query;
  const isTold = column === undefined ? "" : ` where "${column.replaceAll('"', '""')}" is not null`;
  const insert = messages.insertSql(`exists (select 1 from rungs_effect${isTold})`);
  const expressions = [
    ...(own?.expressions ?? []),
    expressionOf("rungs_effect", effect as OperationNode),
    expressionOf("rungs_message", messageNode(insert)),
  ] as const;
  const root = {
    ...SelectQueryNode.createFrom([TableNode.create("rungs_effect")]),
    with: { ...WithNode.create(expressions[0] as CommonTableExpressionNode, own), expressions },
    selections: [SelectionNode.createSelectAll()],
  } as SelectQueryNode;
  const compiled: CompiledQuery = compiler.getExecutor().compileQuery(root, { queryId: "" });
  const slots = slotsOf<P>(compiled);
  const name = `${statement.name}${column === undefined ? "" : `?${column}`}+jobs`;
  return {
    name: Buffer.byteLength(name) > 63 ? undefined : name,
    sql: compiled.sql,
    bind: (parameters, messageValues) =>
      slots(parameters).map((value) => (value instanceof MessagePlaceholder ? messageValues[value.index] : value)),
  };
}

type Embeddable = RootOperationNode & { readonly with?: WithNode };

function isEmbeddable(query: RootOperationNode): query is Embeddable {
  if (query.kind === "SelectQueryNode") return true;
  const isWrite =
    query.kind === "InsertQueryNode" || query.kind === "UpdateQueryNode" || query.kind === "DeleteQueryNode";
  return isWrite && query.returning !== undefined;
}

function expressionOf(name: string, node: OperationNode): CommonTableExpressionNode {
  return CommonTableExpressionNode.create(CommonTableExpressionNameNode.create(name), node);
}

/** The writer's SQL holds each of its parameters once, in order. */
function messageNode(insertSql: string): RawNode {
  const fragments = `(${insertSql})`.split(/\$\d+/);
  const parameters = fragments.slice(1).map((_, index) => ValueNode.create(new MessagePlaceholder(index)));
  return RawNode.create(fragments, parameters);
}

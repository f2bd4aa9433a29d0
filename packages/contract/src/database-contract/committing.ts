/** Transactions: all or nothing, and invalidations after the commit. */
import { sql } from "kysely";
import { type ShardConnection, shardOf } from "rungs/database";
import { expect, it } from "vitest";
import { addItem, type DatabaseHarness, itemsOf, owners } from "./harness.ts";

export function committingContract(contract: DatabaseHarness): void {
  it("commits all or nothing, and invalidates after the commit and before its caller goes on, or not at all", async () => {
    const [owner = ""] = owners;
    await contract.db.for(owner).transaction(async (tx) => {
      tx.invalidate("a", "b");
      await tx.run(addItem, { ownerId: owner, itemId: 1, label: "kept" });
      expect(contract.invalidated).toEqual([]);
    });
    expect(contract.invalidated).toEqual([["a", "b"]]);
    const failing = contract.db.for(owner).transaction(async (tx) => {
      tx.invalidate("c");
      await tx.run(addItem, { ownerId: owner, itemId: 2, label: "lost" });
      throw new Error("changed my mind");
    });
    await expect(failing).rejects.toThrow("changed my mind");
    expect(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).toHaveLength(1);
    expect(contract.invalidated).toHaveLength(1);
    await contract.db.for(owner).run(addItem, { ownerId: owner, itemId: 3, label: "single" }, { invalidate: ["d"] });
    expect(contract.invalidated).toEqual([["a", "b"], ["d"]]);
    await expect(
      contract.db.for(owner).run(addItem, { ownerId: owner, itemId: 3, label: "twice" }, { invalidate: ["e"] }),
    ).rejects.toThrow(/duplicate key/);
    expect(contract.invalidated).toHaveLength(2);
  });

  it("shows others the write before it invalidates, and makes the caller wait for that", async () => {
    const [owner = ""] = owners;
    const steps: string[] = [];
    contract.whenInvalidating = async () => {
      steps.push(`invalidating, others see ${(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).length}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
      steps.push("invalidated");
    };
    await contract.db.for(owner).transaction(async (tx) => {
      tx.invalidate("t");
      await tx.run(addItem, { ownerId: owner, itemId: 1, label: "l" });
      steps.push(`writing, others see ${(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).length}`);
    });
    steps.push("caller goes on");
    expect(steps).toEqual(["writing, others see 0", "invalidating, others see 1", "invalidated", "caller goes on"]);
  });

  it("does not invalidate when the COMMIT itself fails", async () => {
    const [owner = ""] = owners;
    const at = contract.shards[shardOf(contract.placement, owner)] as ShardConnection;
    await sql`create table late (n int, constraint late_once unique (n) deferrable initially deferred)`.execute(
      at.kysely,
    );
    const failing = contract.db.for(owner).transaction(async (tx) => {
      tx.invalidate("never");
      await tx.run(addItem, { ownerId: owner, itemId: 1, label: "l" });
      await sql`insert into late values (1), (1)`.execute(tx);
    });
    await expect(failing).rejects.toThrow(/late_once/);
    await sql`drop table late`.execute(at.kysely);
    expect(contract.invalidated).toEqual([]);
    expect(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([]);
  });

  it("invalidates when nobody knows whether the COMMIT happened, and says so", async () => {
    const [owner = ""] = owners;
    const at = contract.shards[shardOf(contract.placement, owner)] as ShardConnection;
    const lost = contract.db.for(owner).transaction(async (tx) => {
      tx.invalidate("perhaps");
      await tx.run(addItem, { ownerId: owner, itemId: 1, label: "l" });
      const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx);
      await at.query(undefined, "select pg_terminate_backend($1)", [rows[0]?.pid]);
    });
    await expect(lost).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE", canRetry: false });
    expect(contract.invalidated).toEqual([["perhaps"]]);
    expect(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([]);
  });

  it("refuses a transaction in a transaction, and one that is over", async () => {
    const [owner = ""] = owners;
    const leaked = await contract.db.for(owner).transaction(async (tx) => {
      expect(() => tx.kysely.transaction()).toThrow(/not supported/);
      return tx;
    });
    await expect(leaked.run(itemsOf, { ownerId: owner })).rejects.toThrow(/already committed/i);
    await expect(leaked.selectFrom("items").select("label").where("owner_id", "=", owner).execute()).rejects.toThrow(
      /already committed/i,
    );
  });

  it("isolates a transaction as asked, and refuses two that cannot both be", async () => {
    const [owner = ""] = owners;
    await contract.db.for(owner).run(addItem, { ownerId: owner, itemId: 1, label: "l" });
    const readThenWrite = (itemId: number, both: () => Promise<void>) =>
      contract.db.for(owner).transaction(
        async (tx) => {
          const rows = await tx.run(itemsOf, { ownerId: owner });
          await both();
          await tx.run(addItem, { ownerId: owner, itemId, label: `after ${rows.length}` });
        },
        { isolation: "serializable" },
      );
    let arrived = 0;
    let open = () => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const both = () => {
      if (++arrived === 2) open();
      return opened;
    };
    const outcomes = await Promise.allSettled([readThenWrite(2, both), readThenWrite(3, both)]);
    expect(outcomes.filter(({ status }) => status === "rejected")).toHaveLength(1);
    expect(outcomes.find(({ status }) => status === "rejected")).toMatchObject({ reason: { code: "40001" } });
  });

  it("does not take a COMMIT that rolled back for a success", async () => {
    const [owner = ""] = owners;
    const swallowed = contract.db.for(owner).transaction(async (tx) => {
      await tx.run(addItem, { ownerId: owner, itemId: 1, label: "lost" });
      await sql`select 1 / 0 as x`.execute(tx).catch(() => {});
    });
    await expect(swallowed).rejects.toThrow(/rolled back at COMMIT/);
    expect(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([]);
  });
}

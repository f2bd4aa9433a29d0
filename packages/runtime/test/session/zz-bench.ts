import { openSessionDatabase } from "/work/main/packages/runtime/test/session/session-database.ts";
import { databaseSessionStore } from "/work/main/packages/runtime/src/session/drivers/database-session-store.ts";
import { createSessions } from "/work/main/packages/runtime/src/session/sessions.ts";
import { randomUUID } from "node:crypto";
const d = await openSessionDatabase();
const run = async (label: string, fn: (i:number)=>Promise<unknown>, n: number, c: number) => {
  for (let i=0;i<2000;i++) await fn(i);
  const cpu=process.cpuUsage(); const t=performance.now();
  let i=0; await Promise.all(Array.from({length:c},async()=>{ while(i<n) await fn(i++); }));
  const ms=performance.now()-t; const u=process.cpuUsage(cpu);
  console.log(label, "conc",c, (ms*1000/n).toFixed(1),"us/call wall", ((u.user+u.system)/n).toFixed(1),"us cpu of node");
};
const s = createSessions({ store: databaseSessionStore({ database: d.home }) });
const k = createSessions({ store: databaseSessionStore({ kysely: d.home.kysely }) });
const tokens=[]; for(let i=0;i<1000;i++) tokens.push((await s.start(randomUUID())).token);
for (const c of [1,8,32]) {
  await run("load", i=>s.load(tokens[i%1000]!), 20000, c);
  await run("bare select user_id (named)", i=>d.home.query("bare","select user_id from rungs_sessions where token_hash = $1",[Buffer.alloc(32,i)]), 20000, c);
}
await run("load via kysely (unprepared)", i=>k.load(tokens[i%1000]!), 10000, 8);
const t=performance.now(); for(let i=0;i<200000;i++) await s.load("x"); console.log("malformed", ((performance.now()-t)*1000/200000).toFixed(3),"us");
await d.close();

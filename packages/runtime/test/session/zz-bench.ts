import { openSessionDatabase } from "./session-database.ts";
import { databaseSessionStore } from "../../src/session/drivers/database-session-store.ts";
import { createSessions, hashToken } from "../../src/session/sessions.ts";
import { randomUUID } from "node:crypto";
const d = await openSessionDatabase();
const s = createSessions({ store: databaseSessionStore({ database: d.home }) });
const tokens: string[]=[]; for(let i=0;i<1000;i++) tokens.push((await s.start(randomUUID())).token);
const hashes=tokens.map(hashToken);
const n=15000,c=8;
const run = async (fn: (i:number)=>Promise<unknown>) => {
  const cpu=process.cpuUsage(); const t=performance.now();
  let i=0; await Promise.all(Array.from({length:c},async()=>{ while(i<n) await fn(i++); }));
  const ms=performance.now()-t; const u=process.cpuUsage(cpu);
  return [ms*1000/n,(u.user+u.system)/n] as const;
};
const q=(name:string,sql:string)=>(i:number)=>d.home.query(name,sql,[hashes[i%1000]!]);
const W=" from rungs_sessions where token_hash = $1";
const variants: Record<string,(i:number)=>Promise<unknown>> = {
  load: i=>s.load(tokens[i%1000]!),
  "user_id hit": q("a","select user_id"+W),
  "user_id hit+hash": i=>d.home.query("a","select user_id"+W,[hashToken(tokens[i%1000]!)]),
  "user_id miss": i=>d.home.query("a","select user_id"+W,[Buffer.alloc(32)]),
  "all": q("b","select user_id, created_at, last_seen_at, expires_at, data"+W),
  "3 epochs float+data": q("c","select user_id, extract(epoch from created_at)::float8 a, extract(epoch from last_seen_at)::float8 b, extract(epoch from expires_at)::float8 c, data"+W),
  "3 text": q("d","select user_id, created_at::text a, last_seen_at::text b, expires_at::text c, data"+W),
  "no data": q("e","select user_id, created_at, last_seen_at, expires_at"+W),
};
const best: Record<string,[number,number]>={};
for (let r=0;r<4;r++) for (const [k,f] of Object.entries(variants)) { const [w,u]=await run(f); const b=best[k]??=[1e9,1e9]; b[0]=Math.min(b[0],w); b[1]=Math.min(b[1],u); }
for (const [k,b] of Object.entries(best)) console.log(k.padEnd(24), b[0].toFixed(1),"us wall", b[1].toFixed(1),"us node cpu");
await d.close();
